package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) enrollCommand() *cobra.Command {
	var c client.Config
	var reference, secretFile, roots, rootSHA256, key, hook string
	var watch bool
	var hardware tpmFlags
	cmd := withJSON(&cobra.Command{
		Use:   "enroll --server URL --id ID --dir DIR",
		Short: "Get a certificate for a device, or renew it when due",
		Long: `Be a device: make a key, enrol, and keep key and certificate in a directory. Run
again, it renews when half of the validity has passed (over ACME, when the CA says),
and does nothing before. With --watch it goes on for ever, and --hook runs a command
after each change.

The secret of the credential comes from --secret-file or $DEVICECA_SECRET, never from
a flag, which every user of the host could read. The first contact takes the CA's
root certificate, or over EST its SHA-256. The program deviceca-device does the same
and is small enough for devices.

Names that are served on a network (--dns, --ip) the CA may want to see proven: over
ACME, --http01 opens a listener for the time of the challenge. The CA asks at port 80
of each name.

Where an administrator must approve the request, the command waits for that, --wait at most, and fails then. The same
request is found again when it is run again, so that a cron job may use --wait 0.

With --tpm the key is made in the device's TPM 2.0, and the TPM proves it to the CA,
over ACME, by an attestation key that an attestation authority certified. Renewal
goes on with the same key. docs/attestation.md says how to get a device ready.`,
		Example: `  DEVICECA_SECRET=… deviceca enroll --protocol est --server https://127.0.0.1:8443 \
    --roots deviceca-data/root.crt --id lamp-1 --reference k3f5o2lq7xwzmb4a --dir lamp-1
  deviceca enroll --server https://127.0.0.1:8443 --id lamp-1 --dir lamp-1 --renew
  deviceca enroll --protocol acme --server https://127.0.0.1:8443 --roots deviceca-data/root.crt \
    --id gw-1 --reference k3f5o2lq7xwzmb4a --secret-file gw-1.secret \
    --dns gw-1.example --http01 :80 --profile gateway --dir gw-1
  deviceca enroll --protocol acme --server https://127.0.0.1:8443 --roots deviceca-data/root.crt \
    --id gw-2 --reference m7q2x4lk5wzb3f6a --secret-file gw-2.secret \
    --tpm /dev/tpmrm0 --tpm-ak 0x81010002 --tpm-ak-chain ak.pem --dir gw-2`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch c.Protocol {
			case "est", "cmp":
				if c.HTTP01 != "" {
					return usagef("--http01 is for --protocol acme")
				}
			case "acme":
			default:
				return &usageError{fmt.Errorf("--protocol: %q is not a protocol", c.Protocol), "use est, acme or cmp"}
			}
			if c.Server = cmp.Or(c.Server, a.getenv("DEVICECA_SERVER")); c.Server == "" {
				return usagef("--server is missing")
			}
			if err := need(cmd, "id", "dir"); err != nil {
				return err
			}
			var err error
			if cmd.Flags().Changed("profile") && cmd.Flags().Changed("label") {
				return usagef("--profile and --label are two names for one thing: give one")
			}
			if hook != "" && !watch {
				return usagef("--hook is for --watch")
			}
			if err := hardware.check(c.Protocol); err != nil {
				return err
			}
			if c.Credential, err = a.credential(reference, secretFile); err != nil {
				if usage := new(usageError); !enrolled(c.Dir) || c.Force || errors.As(err, &usage) {
					return err
				}
				a.output(cmd).note("warning: %v; the device is enrolled and goes on without", err)
			}
			if key != "" {
				if c.Key, err = client.ParseKeyType(key); err != nil {
					return usagef("--key: %w", err)
				}
			}
			if rootSHA256 != "" {
				if c.Trust.RootSHA256, err = client.ParseRootSHA256(rootSHA256); err != nil {
					return usagef("--root-sha256: %w", err)
				}
			}
			if roots != "" {
				if c.Trust.Roots, err = client.ReadRoots(roots); err != nil {
					return clientError(err)
				}
			}
			if c.Wait <= 0 {
				c.Wait = 1 // not at all; 0 would be the client's own default
			}
			if watch {
				return clientError(a.watch(cmd, c, &hardware, hook))
			}
			shut, err := hardware.open(cmd.Context(), &c)
			if err != nil {
				return clientError(err)
			}
			result, err := client.Run(cmd.Context(), c)
			if shutErr := shut(); err != nil {
				return clientError(errors.Join(err, shutErr))
			} else if shutErr != nil { // the certificate is in place
				a.output(cmd).note("warning: %v", shutErr)
			}
			return a.output(cmd).enrolled(hardware.files(result, c.Dir))
		},
	})
	f := cmd.Flags()
	f.StringVar(&c.Protocol, "protocol", "est", "est, acme or cmp")
	f.StringVar(&c.Server, "server", "", "base URL of the CA ($DEVICECA_SERVER)")
	f.StringVar(&c.Device, "id", "", "device ID")
	f.StringVar(&reference, "reference", "", "reference of the enrolment credential")
	f.StringVar(&secretFile, "secret-file", "", "file with the credential's secret (or $DEVICECA_SECRET)")
	f.StringVar(&c.Dir, "dir", "", "directory for key and certificate")
	f.StringVar(&roots, "roots", "", "the CA's root certificate, PEM")
	f.StringVar(&rootSHA256, "root-sha256", "", "SHA-256 of the CA's root certificate, hex")
	f.StringVar(&c.Label, "profile", "", "certificate profile to ask for")
	f.StringVar(&c.Label, "label", "", "the same, by its name in EST")
	f.StringArrayVar(&c.AltNames.DNS, "dns", nil, "DNS name to ask for beside the ID (may be repeated)")
	f.IPSliceVar(&c.AltNames.IP, "ip", nil, "IP address to ask for beside the ID (may be repeated)")
	f.StringVar(&c.HTTP01, "http01", "", "address to answer http-01 challenges on, as in :80 (acme)")
	hardware.add(f)
	f.StringVar(&key, "key", "", "kind of key to make (default: what the CA asks for, else ecdsa-p256)")
	f.BoolVar(&c.Renew, "renew", false, "renew now, due or not")
	f.BoolVar(&c.Force, "force", false, "enrol anew, whatever there is")
	f.BoolVar(&watch, "watch", false, "go on for ever: renew when due")
	durationFlag(cmd, &c.Wait, "wait", 10*time.Minute, "how long to wait for an approval, or for a server that is busy or away (0: not at all)")
	f.StringVar(&hook, "hook", "", "with --watch: program or shell line to run when the certificate changed ($DEVICECA_CERT, … tell it what)")
	once(f, "dns", "ip")
	cmd.RegisterFlagCompletionFunc("protocol", cobra.FixedCompletions([]string{"est", "acme", "cmp"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// watch keeps the certificate current until the command is told to stop.
func (a *app) watch(cmd *cobra.Command, c client.Config, hardware *tpmFlags, hook string) error {
	c.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	agent := client.Agent{Config: c, Open: hardware.open}
	if hook != "" {
		run := client.CommandHook(hook, cmd.ErrOrStderr())
		agent.Hook = func(ctx context.Context, r client.Result) error { return run(ctx, hardware.files(r, c.Dir)) }
	}
	if err := agent.Watch(cmd.Context()); cmd.Context().Err() == nil {
		return err
	}
	return nil
}

// enrolled: there are trust anchors, which come with the first certificate; it takes no credential to renew.
func enrolled(dir string) bool {
	roots, err := (&client.Store{Dir: dir}).Roots()
	return err == nil && len(roots) > 0
}

// onceValue is a flag that may be given once: of two addresses or names, the last would win unnoticed.
type onceValue struct {
	pflag.Value
	given bool
}

func (v *onceValue) Set(s string) error {
	if v.given {
		return errors.New("it is given twice")
	}
	v.given = true
	return v.Value.Set(s)
}

// once makes every flag one that may be given once, but for those named.
func once(set *pflag.FlagSet, but ...string) {
	set.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(but, f.Name) {
			f.Value = &onceValue{Value: f.Value}
		}
	})
}

// maxSecretFile is far above the 43 characters of a secret.
const maxSecretFile = 4096

// credential reads the secret; none without a reference.
func (a *app) credential(reference, file string) (*client.Credential, error) {
	if reference == "" {
		if file != "" {
			return nil, usagef("--reference is missing beside --secret-file")
		}
		return nil, nil // an inherited DEVICECA_SECRET alone says nothing
	}
	secret := a.getenv("DEVICECA_SECRET")
	if file != "" {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		secret = strings.TrimRight(string(raw), "\r\n")
	}
	switch {
	case secret == "":
		return nil, &usageError{errors.New("the secret of --reference is missing"), "put it into a file for --secret-file, or into DEVICECA_SECRET"}
	case len(secret) > maxSecretFile:
		return nil, fmt.Errorf("the secret is longer than %d characters", maxSecretFile)
	}
	return &client.Credential{Reference: reference, Secret: secret}, nil
}

// clientError gives the client's errors our form.
func clientError(err error) error {
	if client.KindOf(err) == client.Usage {
		return &usageError{err, client.HintOf(err)}
	}
	if hint := client.HintOf(err); hint != "" {
		return &hintError{err, hint}
	}
	return err
}

func (o output) enrolled(r client.Result) error {
	for _, w := range r.Warnings {
		o.note("warning: %s", w)
	}
	return o.print(r, func(fact func(name, value string)) {
		fact(string(r.Action), r.Device)
		fact("serial", r.Serial)
		fact("not after", o.when(r.NotAfter))
		fact("renew at", o.when(r.RenewAt))
		fact("outcome", r.Outcome)
		for _, reason := range r.Reasons {
			fact("because", reason)
		}
		fact("certificate", r.Files.FullChain)
		fact("key", r.Files.Key)
		fact("roots", r.Files.Roots)
	})
}
