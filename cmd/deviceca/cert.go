package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) certCommand() *cobra.Command {
	return a.target(group("cert", "Certificates that were issued", a.certList(), a.certShow(), a.certRevoke(), a.certRelease()))
}

func (a *app) certList() *cobra.Command {
	var f ca.CertificateFilter
	var after string
	var limit int
	var win windowFlags
	var revoked, valid bool
	var within time.Duration
	cmd := withJSON(&cobra.Command{
		Use:   "list",
		Short: "List certificates, oldest first, or newest first with --newest",
		Example: `  deviceca cert list --newest --since 24h
  deviceca cert list --device lamp-1
  deviceca cert list --valid --expires-within 24h --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := a.now()
			switch {
			case limit < 0:
				return usagef("--limit cannot be negative")
			case within < 0:
				return usagef("--expires-within cannot be negative")
			case revoked && valid:
				return usagef("--revoked and --valid exclude each other")
			case revoked:
				f.Revoked = new(true)
			case valid:
				f.Revoked, f.ExpiresAfter = new(false), now
			}
			if within > 0 {
				f.ExpiresAfter, f.ExpiresBefore = now, now.Add(within)
			}
			var err error
			if f.Window, err = a.window(cmd, &win); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				return a.output(cmd).certificates(c.Certificates(ctx, f, after, limit))
			})
		},
	})
	flags := cmd.Flags()
	flags.StringVar(&f.Device, "device", "", "of this device")
	flags.StringVar(&f.Issuer, "issuer", "", "of this CA, with its generation (issuing-1)")
	flags.StringVar(&f.Profile, "profile", "", "of this profile")
	flags.BoolVar(&revoked, "revoked", false, "revoked ones only")
	flags.BoolVar(&valid, "valid", false, "neither revoked nor expired")
	durationFlag(cmd, &within, "expires-within", 0, "that expire within this time")
	win.add(cmd)
	pageFlags(cmd, &after, &limit)
	cmd.RegisterFlagCompletionFunc("device", a.completeDevices)
	cmd.RegisterFlagCompletionFunc("profile", a.completeProfiles)
	return cmd
}

func (o output) certificates(items iter.Seq2[ca.Certificate, error]) error {
	columns := []string{"SERIAL", "DEVICE", "PROFILE", "ISSUER", "STATE", "EXPIRES"}
	return list(o, items, columns, func(c ca.Certificate) []string {
		return []string{c.Serial.String(), c.Device, c.Profile, c.Issuer, o.state(&c), o.when(c.NotAfter)}
	})
}

func (o output) state(c *ca.Certificate) string {
	switch {
	case c.Revocation != nil && c.Revocation.Reason == ca.ReasonCertificateHold:
		return "on hold"
	case c.Revocation != nil:
		return "revoked"
	case o.now.After(c.NotAfter):
		return "expired"
	}
	return "valid"
}

func (a *app) certShow() *cobra.Command {
	var asPEM bool
	cmd := withJSON(&cobra.Command{
		Use:   "show SERIAL",
		Short: "Show a certificate, why it was issued, and where its status is",
		Example: `  deviceca cert show 01:00:00:00:00:00:2a:9f:…
  deviceca cert show $SERIAL --pem | openssl x509 -noout -text`,
		Args: takes("SERIAL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			serial, err := parseSerial(args[0])
			if err != nil {
				return err
			}
			o := a.output(cmd)
			if o.json && asPEM {
				return usagef("--json and --pem exclude each other")
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				cert, err := c.Certificate(ctx, serial)
				if err != nil {
					return err
				}
				if asPEM {
					_, err := io.WriteString(o.w, cert.PEM)
					return err
				}
				view, err := viewCertificate(cert)
				if err != nil {
					return err
				}
				return o.print(view, func(fact func(name, value string)) {
					o.certificateFacts(&cert.Certificate, fact)
					view.Pointers.facts(fact)
				})
			})
		},
	})
	cmd.Flags().BoolVar(&asPEM, "pem", false, "print the certificate itself")
	return cmd
}

func (o output) certificateFacts(c *ca.Certificate, fact func(name, value string)) {
	fact("serial", c.Serial.String())
	fact("device", c.Device)
	fact("state", o.state(c))
	if r := c.Revocation; r != nil {
		fact("revoked", o.when(r.Time))
		fact("reason", ca.ReasonName(r.Reason))
		if r.Invalid != nil {
			fact("invalid since", o.when(*r.Invalid))
		}
	}
	fact("issuer", c.Issuer)
	fact("profile", c.Profile)
	fact("level", c.Level)
	fact("issued", o.when(c.IssuedAt))
	fact("not before", instant(c.NotBefore))
	fact("not after", o.when(c.NotAfter))
	if !c.Replaces.IsZero() {
		fact("replaces", c.Replaces.String())
	}
	fact("protocol", c.Protocol)
	fact("requester", c.Requester+" ("+c.Actor+")")
	fact("outcome", string(c.Decision.Outcome))
	fact("rule", c.Decision.Rule)
	fact("policy", c.Decision.Version)
	for _, reason := range c.Decision.Reasons {
		fact("because", reason)
	}
}

func parseSerial(text string) (ca.Serial, error) {
	serial, err := ca.ParseSerial(text)
	if err != nil {
		return serial, &usageError{err, "list serials with: deviceca cert list"}
	}
	return serial, nil
}

func checkReason(name string) error {
	if _, err := ca.ParseReason(name); err != nil {
		return usagef("--reason: %w", err)
	}
	return nil
}

func (a *app) certRevoke() *cobra.Command {
	var reason, invalid, file, issuer, end string
	cmd := withJSON(&cobra.Command{
		Use:   "revoke SERIAL|--of FILE --reason REASON",
		Short: "Revoke a certificate",
		Long: `Revoke a certificate: for good, unless the reason is certificateHold, which
cert release ends. REASON is a name of RFC 5280 §5.3.1. OCSP, delta CRLs and delta
packs say so within a second. The
invalidity date says since when the key may have been in other hands (§5.3.2).

After a restore from a backup, the ledger does not hold certificates that were issued since. Give the
certificate with --of, or its serial with the CA's name in --issuer: a record is made, and published like any other.
From the serial alone nobody can tell when the certificate ends, so that it stays on the lists until
--not-after, or else until its CA ends.`,
		Example: `  deviceca cert revoke $SERIAL --reason superseded
  deviceca cert revoke $SERIAL --reason keyCompromise --invalidity-date 2030-01-31T12:00:00Z
  deviceca cert revoke --of lost.pem --reason keyCompromise
  deviceca cert revoke $SERIAL --issuer issuing --reason keyCompromise`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" && issuer != "" {
				return usagef("--of and --issuer exclude each other")
			}
			serial, lost, err := certToRevoke(args, file)
			if err != nil {
				return err
			}
			if err := need(cmd, "reason"); err != nil {
				return err
			}
			if err := checkReason(reason); err != nil {
				return err
			}
			since, err := parseTime("invalidity-date", invalid)
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				r := admin.Revoke{Reason: reason, Invalid: since, Cert: lost, Issuer: issuer}
				if r.NotAfter, err = parseTime("not-after", end); err != nil {
					return err
				}
				cert, err := c.RevokeCertificate(ctx, serial, r)
				if p, ok := errors.AsType[*admin.Problem](err); ok && p.Kind == ca.NotFound.String() && lost == "" && issuer == "" {
					return hinted(err, "list serials with: deviceca cert list; one that was issued after the backup that this CA was restored from takes --issuer NAME or --of FILE")
				}
				if err != nil {
					return err
				}
				o := a.output(cmd)
				return o.print(cert, func(fact func(name, value string)) {
					fact("serial", cert.Serial.String())
					fact("device", cert.Device)
					if r := cert.Revocation; r != nil {
						fact("revoked", instant(r.Time))
						fact("reason", ca.ReasonName(r.Reason))
					}
				})
			})
		},
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why: keyCompromise, superseded, cessationOfOperation, …")
	cmd.Flags().StringVar(&invalid, "invalidity-date", "", "since when the key is not to be trusted (RFC 3339)")
	cmd.Flags().StringVar(&file, "of", "", "the certificate, PEM or DER, in place of SERIAL; it need not be in the ledger")
	cmd.Flags().StringVar(&issuer, "issuer", "", "CA of a certificate that is not in the ledger (issuing, or a generation such as issuing-1)")
	cmd.Flags().StringVar(&end, "not-after", "", "with --issuer: when the certificate ends at the latest (RFC 3339)")
	cmd.RegisterFlagCompletionFunc("reason", completeReasons)
	return cmd
}

// certToRevoke reads what cert revoke is given: a serial, or a certificate, which it returns in PEM.
func certToRevoke(args []string, file string) (serial ca.Serial, cert string, err error) {
	if file == "" {
		if len(args) == 0 {
			return serial, "", usagef("SERIAL is missing")
		}
		serial, err = parseSerial(args[0])
		return serial, "", err
	}
	certs, err := readCerts(file)
	if err != nil {
		return serial, "", err
	}
	serial, ours := ca.SerialFromBig(certs[0].SerialNumber)
	if !ours {
		return serial, "", fmt.Errorf("%s has serial %x, which is none of a deviceca CA: 38 hex digits that begin with 01", file, certs[0].SerialNumber)
	}
	if len(args) > 0 {
		if given, err := parseSerial(args[0]); err != nil || given != serial {
			return serial, "", usagef("SERIAL is not that of %s: give one of them", file)
		}
	}
	return serial, string(pemCert(certs[0].Raw)), nil
}

func (a *app) certRelease() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "release SERIAL",
		Short: "End the hold of a certificate",
		Long: `End the hold of a certificate that was revoked for certificateHold: it is good again.
What was revoked for any other reason stays so.`,
		Example: `  deviceca cert revoke $SERIAL --reason certificateHold
  deviceca cert release $SERIAL`,
		Args: takes("SERIAL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			serial, err := parseSerial(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				cert, err := c.ReleaseCertificate(ctx, serial)
				if err != nil {
					return err
				}
				o := a.output(cmd)
				return o.print(cert, func(fact func(name, value string)) {
					fact("serial", cert.Serial.String())
					fact("device", cert.Device)
					fact("state", o.state(cert))
				})
			})
		},
	})
}

// parseTime reads a time flag; "" is none.
func parseTime(flag, text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	t, err := ca.ParseTime(text)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--%s: %q is not a time", flag, text), "write it as 2030-01-31T12:00:00Z"}
	}
	return &t, nil
}
