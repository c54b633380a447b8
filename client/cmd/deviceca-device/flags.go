package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/client"
)

// options are the flags, made into what the library wants.
type options struct {
	config client.Config
	json   bool
	hook   string
}

// parse reads the flags of a command. Its errors are of kind Usage, or say which file is at fault.
func parse(command string, args []string, getenv func(string) string, stderr io.Writer) (*options, error) {
	var o options
	c := &o.config
	set := flag.NewFlagSet("deviceca-device "+command, flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&c.Dir, "dir", "", "directory `DIR` of key and certificate")
	set.Float64Var(&c.RenewFraction, "renew-at", client.DefaultRenewFraction, "renew after this `PART` of the validity, 0.1 to 0.9")
	var reference, secretFile, roots, pin, key, idevidCert, idevidKey string
	var tls12 bool
	switch command {
	case "show":
		set.BoolVar(&o.json, "json", false, "print JSON")
	default:
		set.StringVar(&c.Protocol, "protocol", "est", "`PROTOCOL` to speak: est, acme or cmp")
		set.StringVar(&c.Server, "server", "", "base `URL` of the CA, https://host:port")
		set.StringVar(&c.Device, "id", "", "device `ID`")
		set.StringVar(&c.Label, "label", "", "certificate profile to ask for, by its `LABEL` in EST")
		set.StringVar(&c.Label, "profile", "", "the same `PROFILE`, by its name in ACME and CMP")
		set.StringVar(&c.HTTP01, "http01", "", "`ADDRESS` to answer http-01 challenges on, as in :80 (acme)")
		set.StringVar(&reference, "reference", "", "reference `R` of the enrolment credential")
		set.StringVar(&secretFile, "secret-file", "", "`FILE` with the credential's secret (else DEVICECA_SECRET)")
		set.StringVar(&roots, "roots", "", "PEM `FILE` with the CA's root certificate")
		set.StringVar(&pin, "root-sha256", "", "SHA-256 of the CA's root certificate, in `HEX`")
		set.StringVar(&idevidCert, "idevid-cert", "", "PEM `FILE` with a manufacturer's certificate to enrol with")
		set.StringVar(&idevidKey, "idevid-key", "", "PEM `FILE` with its key")
		set.StringVar(&key, "key", "", fmt.Sprintf("`TYPE` of key: one of %v (default: what the CA asks for, else %s)", client.KeyTypes(), client.ECDSAP256))
		set.BoolVar(&c.KeepKey, "keep-key", false, "renew with the same key")
		set.Func("dns", "DNS `NAME` to ask for (may be repeated)", func(s string) error {
			c.AltNames.DNS = append(c.AltNames.DNS, s)
			return nil
		})
		set.Func("ip", "IP `ADDRESS` to ask for (may be repeated)", func(s string) error {
			ip := net.ParseIP(s)
			if ip == nil {
				return fmt.Errorf("no IP address")
			}
			c.AltNames.IP = append(c.AltNames.IP, ip)
			return nil
		})
		set.Func("uri", "`URI` to ask for (may be repeated)", func(s string) error {
			u, err := url.Parse(s)
			if err == nil && u.Scheme == "" {
				err = fmt.Errorf("no scheme")
			}
			c.AltNames.URI = append(c.AltNames.URI, u)
			return err
		})
		set.BoolVar(&c.Renew, "renew", false, "renew now, due or not")
		set.BoolVar(&c.Force, "force", false, "enrol anew, whatever there is")
		set.BoolVar(&tls12, "tls12", false, "allow TLS 1.2")
		set.DurationVar(&c.Wait, "wait", 10*time.Minute, "`TIME` to wait for an approval or a busy server")
	}
	switch command {
	case "enroll":
		set.BoolVar(&o.json, "json", false, "print JSON")
	case "watch":
		set.StringVar(&o.hook, "hook", "", "`COMMAND` to run when the certificate changed, a program or a line for the shell (DEVICECA_CERT, _KEY, … tell it what)")
	}
	once(set, "dns", "ip", "uri")
	if err := set.Parse(args); err != nil {
		if err == flag.ErrHelp {
			return nil, err
		}
		return nil, misused("see deviceca-device "+command+" -h", "the flags cannot be read") // flag printed which
	}
	if set.NArg() > 0 {
		return nil, misused("every argument is a flag", "what is %q?", set.Arg(0))
	}
	given := map[string]bool{}
	set.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["label"] && given["profile"] {
		return nil, misused("they are two names for one thing: give one", "-label and -profile are both given")
	}
	if c.Dir == "" {
		return nil, misused("name the directory for key and certificate", "-dir is missing")
	}
	if command == "show" {
		return &o, nil
	}
	if c.Server == "" {
		return nil, misused("give the CA's address, as in -server https://ca.example:8443", "-server is missing")
	}
	if tls12 {
		c.MinTLS = tls.VersionTLS12
	}
	var err error
	if key != "" {
		if c.Key, err = client.ParseKeyType(key); err != nil {
			return nil, err
		}
	}
	if roots != "" {
		if c.Trust.Roots, err = client.ReadRoots(roots); err != nil {
			return nil, err
		}
	}
	if pin != "" {
		if c.Trust.RootSHA256, err = client.ParseRootSHA256(pin); err != nil {
			return nil, err
		}
	}
	if c.Credential, err = credential(reference, secretFile, getenv); err != nil {
		if !enrolled(c.Dir) || c.Force || client.KindOf(err) == client.Usage {
			return nil, err
		}
		fmt.Fprintf(stderr, "warning: %v; the device is enrolled and goes on without\n", err)
	}
	if idevidCert != "" || idevidKey != "" {
		pair, err := tls.LoadX509KeyPair(idevidCert, idevidKey)
		if err != nil {
			return nil, &client.Error{Kind: client.Local, Op: "idevid", Text: "the manufacturer's certificate and key cannot be used", Err: err,
				Hint: "give -idevid-cert and -idevid-key, both in PEM"}
		}
		c.IDevID = &pair
	}
	return &o, nil
}

// enrolled: there are trust anchors, which come with the first certificate; it takes no credential to renew.
func enrolled(dir string) bool {
	roots, err := (&client.Store{Dir: dir}).Roots()
	return err == nil && len(roots) > 0
}

// maxSecret is far above the 43 characters of a secret that deviceca makes.
const maxSecret = 4096

// credential takes the secret from a file or the environment, never from a flag, which every user of the
// machine could read.
func credential(reference, file string, getenv func(string) string) (*client.Credential, error) {
	secret := getenv("DEVICECA_SECRET")
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, &client.Error{Kind: client.Local, Op: "secret", Text: "the secret cannot be read", Err: err}
		}
		secret = strings.TrimRight(string(text), "\r\n")
	}
	switch {
	case reference == "" && file == "": // an inherited DEVICECA_SECRET alone says nothing
		return nil, nil
	case reference == "":
		return nil, misused("give the credential's reference beside its secret", "-reference is missing")
	case secret == "":
		return nil, misused("put the secret into a file for -secret-file, or into DEVICECA_SECRET", "the secret of %q is missing", reference)
	case len(secret) > maxSecret:
		return nil, misused("check -secret-file", "the secret is longer than %d characters", maxSecret)
	}
	return &client.Credential{Reference: reference, Secret: secret}, nil
}

// onceValue is a flag that may be given once: of two addresses or names, the last would win unnoticed.
type onceValue struct {
	flag.Value
	given bool
}

func (v *onceValue) Set(s string) error {
	if v.given {
		return errors.New("it is given twice")
	}
	v.given = true
	return v.Value.Set(s)
}

func (v *onceValue) IsBoolFlag() bool {
	b, ok := v.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// String is also asked of a zero value, by the flag package.
func (v *onceValue) String() string {
	if v.Value == nil {
		return ""
	}
	return v.Value.String()
}

// once makes every flag one that may be given once, but for those named.
func once(set *flag.FlagSet, but ...string) {
	set.VisitAll(func(f *flag.Flag) {
		if !slices.Contains(but, f.Name) {
			f.Value = &onceValue{Value: f.Value}
			if f.DefValue == "false" {
				f.DefValue = "" // not worth a word in the help
			}
		}
	})
}

func misused(hint, format string, args ...any) error {
	return &client.Error{Kind: client.Usage, Text: fmt.Sprintf(format, args...), Hint: hint}
}
