package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/store"
)

// An init works in the home itself, which may be a mounted volume. It begins with the file init.json, which says what it was asked
// for, and ends when the configuration is there. In between the directory holds nothing but what init made: so a failure removes
// all of it, and an init that was killed begins again. On a token that is not in the home, a failure destroys
// what this run made; one that goes on uses what the run before made.

// given is what an init was asked for, by flag.
func (o *initOptions) given() map[string]*string {
	return map[string]*string{"keys": &o.Keys, "pin": &o.PIN, "root-keys": &o.RootKeys, "root-pin": &o.RootPIN, "root": &o.Root,
		"key-type": (*string)(&o.Spec), "name": &o.Name, "url": &o.URL}
}

// recall fills in what the interrupted init in home was asked for, but for the flags that are set now.
func (o *initOptions) recall(home Home, set func(flag string) bool) error {
	raw, err := os.ReadFile(home.path(initMark))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // none was interrupted: a new one
	}
	if err != nil {
		return err
	}
	var before map[string]string
	if err := json.Unmarshal(raw, &before); err != nil {
		return fmt.Errorf("%s: %w", home.path(initMark), err)
	}
	for flag, value := range o.given() {
		switch {
		case !set(flag):
			*value = before[flag]
		case *value != before[flag] && (flag == "keys" || flag == "root-keys" || flag == "root"):
			return usagef("the init that was interrupted was asked for --%s %q, and may have made keys there: it goes on with the same", flag, before[flag])
		}
	}
	return nil
}

// begin takes the directory, and marks it.
func (c *ceremony) begin() error {
	if err := c.mayBegin(); err != nil {
		return err
	}
	if _, err := os.Stat(string(c.home)); errors.Is(err, fs.ErrNotExist) {
		c.madeDir = true
	}
	if err := os.MkdirAll(string(c.home), 0o700); err != nil {
		return err
	}
	if err := os.Chmod(string(c.home), 0o700); err != nil {
		return err
	}
	unlock, err := c.home.lock()
	if err != nil {
		return err
	}
	c.unlock = unlock
	if err := c.mayBegin(); err != nil { // another may have been faster
		unlock()
		return err
	}
	_, err = os.Stat(c.home.path(initMark))
	c.resumed = err == nil
	if err = c.wipe(); err == nil && !c.resumed {
		err = c.mark()
	}
	if err != nil {
		err = c.undo(err)
		unlock()
	}
	return err
}

// mark writes down what was asked for. It stays as it is when the init goes on, so that a mistake then is not what the next run begins with.
func (c *ceremony) mark() error {
	said := map[string]string{}
	for flag, value := range c.given() {
		said[flag] = *value
	}
	raw, err := json.MarshalIndent(said, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(c.home.path(initMark), append(raw, '\n'), 0o600)
}

// mayBegin refuses a directory in which something else is than an init left.
func (c *ceremony) mayBegin() error {
	what, _, err := c.home.look()
	switch {
	case err != nil:
		return err
	case what == wholeHome:
		return hinted(fmt.Errorf("there is a CA in %s already", c.home), "start it with: deviceca serve --home %s", c.home)
	case what == openInit && c.Resume:
		return nil
	case what != noHome:
		return c.home.mustExist()
	}
	entries, err := os.ReadDir(string(c.home))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != "lost+found" && name != "lock" && !strings.HasPrefix(name, "."+initMark+".") {
			return hinted(fmt.Errorf("%s is not empty, and no CA either: there is %s in it", c.home, name), "name a directory that is empty, or does not exist")
		}
	}
	return nil
}

// wipe removes all that an init made in the home, but for the mark and the lock.
func (c *ceremony) wipe() error {
	entries, err := os.ReadDir(string(c.home))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if name := e.Name(); name != "lost+found" && name != "lock" && name != initMark {
			errs = append(errs, os.RemoveAll(c.home.path(name)))
		}
	}
	return errors.Join(errs...)
}

// undoTime is how long the tokens may take to destroy what a failed init made.
const undoTime = 30 * time.Second

// undo removes what this init made, and returns why it was not more. What an earlier run made on a token stays, and with it the mark.
func (c *ceremony) undo(cause error) error {
	if free, known := store.Room(string(c.home)); known && free < 64<<10 {
		cause = hinted(fmt.Errorf("the disk of %s is full: %w", c.home, cause), "make room, and run init again")
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoTime) // it may be why init ended that its own has
	defer cancel()
	errs := []error{os.RemoveAll(c.home.config())} // first: without its keys it is no CA
	for which, p := range c.open {
		if c.cfg.Keys.Provider == "pkcs11" {
			if err := p.Undo(ctx); err != nil {
				errs = append(errs, fmt.Errorf("what was made on the %s token is there still: %w", which, err))
			}
		}
	}
	c.closeTokens()
	errs = append(errs, c.wipe())
	if err := errors.Join(errs...); err != nil {
		return hinted(errors.Join(cause, err), "mend what is wrong, and let it go on with: deviceca init --resume --home %s", c.home)
	}
	if c.resumed && c.cfg.Keys.Provider == "pkcs11" {
		return cause
	}
	errs = append(errs, os.RemoveAll(c.home.path(initMark)), os.RemoveAll(c.home.path("lock")))
	if c.madeDir {
		errs = append(errs, os.Remove(string(c.home)))
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

// at is a step that is done; tests let an init fail or die there.
func (c *ceremony) at(step string) error {
	if c.fault == nil {
		return nil
	}
	return c.fault(step)
}

// maker is a provider during an init. It finds the keys that an interrupted one made already.
type maker struct {
	keys.Provider
	c *ceremony
}

func (m maker) Generate(ctx context.Context, label string, spec keys.Spec) (keys.Key, error) {
	if m.c.resumed {
		if key, err := m.Key(ctx, label); !errors.Is(err, keys.ErrNotFound) {
			if err != nil {
				return nil, err
			}
			if have, err := specFor(key.Public()); err != nil || have != spec {
				return nil, fmt.Errorf("the init that was interrupted made the key %q of the kind %s, and %s is asked for now: go on with --key-type %[2]s", label, have, spec)
			}
			return key, nil
		}
	}
	key, err := m.Provider.Generate(ctx, label, spec)
	if err == nil {
		err = m.c.at("key " + label)
	}
	return key, err
}

func (m maker) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	sealed, err := m.Provider.Seal(ctx, plaintext, aad)
	if err == nil {
		err = m.c.at("sealed")
	}
	return sealed, err
}
