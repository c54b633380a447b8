package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/deviceca/deviceca/internal/keys"
)

// What an init can know to be wrong, it knows before it makes anything: the flags (check), what the configuration will say
// (configure), and then what the tokens say: PINs, labels, mechanisms (openTokens).

// check refuses flags that do not go together.
func (o *initOptions) check() error {
	uri := strings.HasPrefix(o.Keys, "pkcs11:")
	external := o.Root == "external"
	switch {
	case !uri && o.Keys != "softhsm" && o.Keys != "file":
		return usagef("--keys %q: use softhsm, file, or a pkcs11: URI", o.Keys)
	case !external && o.Root != "internal":
		return usagef("--root %q: use internal or external", o.Root)
	case !slices.Contains(keys.Specs(), o.Spec):
		return usagef("--key-type %q: use one of %v", o.Spec, keys.Specs())
	case !uri && (o.PIN != "" || o.RootKeys != "" || o.RootPIN != ""):
		return usagef("--pin, --root-keys and --root-pin are for --keys with a pkcs11: URI: with %s, init makes the PINs", o.Keys)
	case external && (o.RootKeys != "" || o.RootPIN != ""):
		return usagef("--root-keys and --root-pin name a root's token that is here, and --root external says that it is not")
	case uri && o.RootKeys == "" && !external:
		return usagef("--keys with a URI needs --root-keys with the URI of another token for the root, or --root external")
	case !uri:
		return nil
	}
	return o.checkTokens()
}

func (o *initOptions) checkTokens() error {
	var tokens []keys.URI
	for _, t := range []struct{ flag, uri, pinFlag, pin string }{{"keys", o.Keys, "pin", o.PIN}, {"root-keys", o.RootKeys, "root-pin", o.RootPIN}} {
		if t.uri == "" {
			continue
		}
		u, err := keys.ParseURI(t.uri)
		if err != nil {
			return usagef("--%s: %w", t.flag, err)
		}
		if t.pin != "" {
			if _, err := keys.ParsePINSource(t.pin); err != nil {
				return usagef("--%s: %w", t.pinFlag, err)
			}
		}
		u.PINSource = keys.PINSource{}
		tokens = append(tokens, u)
	}
	if len(tokens) == 2 && tokens[0].String() == tokens[1].String() {
		return usagef("--keys and --root-keys name the same token: the root's keys must be in one of their own, which is taken away")
	}
	return nil
}

// configure says in the configuration what the options say, and checks it.
func (c *ceremony) configure() (written []byte, err error) {
	c.cfg.Name = c.Name
	// Written down even if it is the default: certificates carry it, whatever
	// address the server is later told to listen on.
	if c.cfg.URL = c.URL; c.URL == "" {
		c.cfg.URL = c.cfg.PublicURL()
	}
	c.cfg.Keys.Provider = c.Keys
	switch c.Keys {
	case "softhsm":
	case "file":
		c.cfg.Keys.AllowFile = true
	default:
		c.cfg.Keys.Provider = "pkcs11"
		c.cfg.Keys.Issuing, c.cfg.Keys.PINIssuing = c.Keys, c.PIN
		c.cfg.Keys.Root, c.cfg.Keys.PINRoot = c.RootKeys, c.RootPIN
	}
	written = c.cfg.YAML() // before the paths in it become absolute
	if _, err := ParseConfig(configFile, written, func(string) string { return "" }); err != nil {
		return nil, &usageError{err: err}
	}
	c.cfg, err = c.cfg.Resolve(string(c.home))
	return written, err
}

// openTokens logs in to every token, and asks each whether it can make what comes. A wrong PIN of the last is known before
// the first has made a key.
func (c *ceremony) openTokens(ctx context.Context) error {
	for _, which := range c.tokens() {
		p, err := openKeys(ctx, c.home, c.cfg, which, c.log)
		if err != nil {
			return fmt.Errorf("the token of the %s keys: %w", which, err)
		}
		c.open[which] = maker{p, c}
	}
	var err error
	if c.auditSpec, err = quickSpec(ctx, c.open["issuing"], c.Spec); err != nil {
		return fmt.Errorf("the token of the issuing keys: %w", err)
	}
	for which, labels := range map[string]map[string]keys.Spec{
		"root": {"root-1": c.Spec, "quarantine-root-1": c.Spec}, "issuing": {"audit": c.auditSpec, "issuing-1": c.Spec, "quarantine-1": c.Spec},
	} {
		if err := c.checkToken(ctx, which, labels); err != nil {
			return err
		}
	}
	return nil
}

func (c *ceremony) checkToken(ctx context.Context, which string, want map[string]keys.Spec) error {
	p, ok := c.open[which]
	if !ok {
		return nil // the root's, and it is external
	}
	if c.resumed { // then what is there is used
		for label := range want {
			if _, err := p.Key(ctx, label); err == nil {
				delete(want, label)
			}
		}
	}
	err := p.Check(ctx, want, which == "issuing")
	switch {
	case errors.Is(err, keys.ErrExists):
		return hinted(fmt.Errorf("the token of the %s keys: %w", which, err), "it holds the keys of a CA already: name another token, or destroy them with the maker's tools if nothing needs them")
	case err != nil:
		return fmt.Errorf("the token of the %s keys: %w", which, err)
	}
	return nil
}

func (c *ceremony) closeTokens() {
	for which, p := range c.open {
		p.Close()
		delete(c.open, which)
	}
}
