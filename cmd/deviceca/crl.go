package main

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/internal/admin"
)

func (a *app) crlCommand() *cobra.Command {
	return group("crl", "Revocation lists: publish, fetch, show, verify", a.target(a.crlPublish()), a.crlFetch(), a.crlShow(), a.crlVerify())
}

func (a *app) crlPublish() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "publish [NAME]",
		Short: "Make complete CRLs and full revocation packs now",
		Long: `Make complete CRLs and full revocation packs now, beside their schedule: of the CA
called NAME (issuing, quarantine, or a generation such as issuing-1), or of all.

Revocations need no publish: OCSP, delta CRLs and delta packs hold them within a second,
complete CRLs within crl.full_within (a minute; longer above 50,000 entries). nginx, HAProxy,
mosquitto and curl ignore deltas: they read complete CRLs, and only when those are loaded again:
keep the files with: deviceca crl fetch --watch. Full packs take revocations up at pack.every, or here.

Lists and packs that a wrong clock has dated in the future are made again, as the server does by itself.`,
		Example: `  deviceca crl publish
  deviceca crl publish issuing`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				made, err := c.Publish(ctx, strings.Join(args, ""))
				if err != nil {
					return err
				}
				return a.output(cmd).print(made, func(fact func(name, value string)) {
					for _, name := range made.CAs {
						fact("published", name)
					}
				})
			})
		},
	})
}

// listView is a CRL for people and programs.
type listView struct {
	Issuer     string      `json:"issuer"`
	Number     string      `json:"number,omitempty"`
	Base       string      `json:"base,omitempty"` // of a delta
	ThisUpdate time.Time   `json:"this_update"`
	NextUpdate time.Time   `json:"next_update"`
	Scope      []string    `json:"scope,omitempty"`
	Freshest   []string    `json:"freshest,omitempty"`
	Count      int         `json:"count"`
	Octets     int         `json:"octets"`
	Faults     []string    `json:"faults,omitempty"`
	Entries    []entryView `json:"entries,omitempty"`
}

type entryView struct {
	Serial  string     `json:"serial"`
	Revoked time.Time  `json:"revoked"`
	Reason  string     `json:"reason"`
	Invalid *time.Time `json:"invalidity_date,omitempty"`
}

func numberText(n *big.Int) string {
	if n == nil {
		return ""
	}
	return n.String()
}

// nameText writes a Name (DER) as people do.
func nameText(raw []byte) string {
	var rdns pkix.RDNSequence
	if _, err := asn1.Unmarshal(raw, &rdns); err != nil {
		return fmt.Sprintf("%x", raw)
	}
	return rdns.String()
}

func serialText(n *big.Int) string {
	if s, ok := ca.SerialFromBig(n); ok {
		return s.String()
	}
	return fmt.Sprintf("%x", n)
}

func (a *app) crlShow() *cobra.Command {
	var entries int
	cmd := withJSON(&cobra.Command{
		Use:   "show FILE|URL",
		Short: "Show a CRL, without verifying it",
		Example: `  deviceca crl show http://127.0.0.1:8080/crl/issuing.crl
  deviceca crl show deviceca-data/crl/issuing-1-delta.crl --entries 10 --json`,
		Args: takes("FILE|URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if entries < 0 {
				return usagef("--entries cannot be negative")
			}
			list, err := readCRL(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v := listView{Issuer: nameText(list.Issuer), Number: numberText(list.Number), Base: numberText(list.Base), ThisUpdate: list.ThisUpdate,
				NextUpdate: list.NextUpdate, Scope: list.Scope.URLs, Freshest: list.Freshest, Count: list.Count, Octets: len(list.Raw), Faults: list.Faults}
			for line := range list.Lines() {
				if len(v.Entries) == entries {
					break
				}
				e := entryView{Serial: serialText(line.Serial), Revoked: line.Revoked, Reason: ca.ReasonName(line.Reason)}
				if !line.Invalid.IsZero() {
					e.Invalid = &line.Invalid
				}
				v.Entries = append(v.Entries, e)
			}
			o := a.output(cmd)
			return o.print(v, func(fact func(name, value string)) {
				fact("issuer", v.Issuer)
				fact("number", v.Number)
				fact("delta to", v.Base)
				fact("this update", o.when(v.ThisUpdate))
				fact("next update", o.when(v.NextUpdate))
				fact("scope", strings.Join(v.Scope, " "))
				fact("deltas at", strings.Join(v.Freshest, " "))
				fact("entries", fmt.Sprint(v.Count))
				fact("octets", fmt.Sprint(v.Octets))
				for _, f := range v.Faults {
					fact("fault", f)
				}
				for _, e := range v.Entries {
					fact(e.Serial, instant(e.Revoked)+" "+e.Reason)
				}
			})
		},
	})
	cmd.Flags().IntVar(&entries, "entries", 0, "how many entries to show")
	return cmd
}

func (a *app) crlVerify() *cobra.Command {
	var issuerFile, deltaFile, serialFlag string
	cmd := withJSON(&cobra.Command{
		Use:   "verify FILE|URL --issuer PEM",
		Short: "Verify a CRL and its delta, and look a serial up",
		Long: `Verify a CRL as a relying party does (RFC 5280 §6.3): who signed it, whether it is
current, and whether the delta fits. With --serial, say whether that is revoked, and exit
with 1 if it is.`,
		Example: `  deviceca crl verify issuing.crl --issuer issuing.crt
  deviceca crl verify issuing.crl --delta issuing-delta.crl --issuer issuing.crt --serial $SERIAL`,
		Args: takes("FILE|URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "issuer"); err != nil {
				return err
			}
			var serial *big.Int
			if serialFlag != "" {
				n, ok := new(big.Int).SetString(strings.TrimPrefix(strings.ToLower(strings.ReplaceAll(serialFlag, ":", "")), "0x"), 16)
				if !ok {
					return usagef("--serial: %q is not hex", serialFlag)
				}
				serial = n
			}
			issuers, err := readCerts(issuerFile)
			if err != nil {
				return err
			}
			list, err := readCRL(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			issuer := issuers[0]
			if i := slices.IndexFunc(issuers, func(c *x509.Certificate) bool { return list.IsOf(c) == nil }); i >= 0 {
				issuer = issuers[i]
			}
			if err := list.Verify(issuer, a.now()); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			var delta *crl.List
			if deltaFile != "" {
				if delta, err = readCRL(cmd.Context(), deltaFile); err != nil {
					return err
				}
				if err := delta.Verify(issuer, a.now()); err != nil {
					return fmt.Errorf("%s: %w", deltaFile, err)
				}
				if err := list.CheckDelta(delta); err != nil {
					return err
				}
			}
			v := struct {
				Verified bool       `json:"verified"`
				Number   string     `json:"number"`
				Until    time.Time  `json:"next_update"`
				Serial   string     `json:"serial,omitempty"`
				Status   string     `json:"status,omitempty"`
				Entry    *entryView `json:"entry,omitempty"`
			}{Verified: true, Number: numberText(list.Number), Until: list.NextUpdate}
			if delta != nil {
				v.Number, v.Until = numberText(delta.Number), delta.NextUpdate
			}
			if serial != nil {
				line, err := crl.Lookup(list, delta, serial)
				if err != nil {
					return err
				}
				v.Serial, v.Status = serialText(serial), "not revoked"
				if line != nil {
					v.Status, v.Entry = "revoked", &entryView{Serial: v.Serial, Revoked: line.Revoked, Reason: ca.ReasonName(line.Reason)}
				}
			}
			o := a.output(cmd)
			if err := o.print(v, func(fact func(name, value string)) {
				fact("verified", "number "+v.Number)
				fact("next update", o.when(v.Until))
				fact("serial", v.Serial)
				fact("status", v.Status)
				if v.Entry != nil {
					fact("revoked", instant(v.Entry.Revoked))
					fact("reason", v.Entry.Reason)
				}
			}); err != nil {
				return err
			}
			if v.Entry != nil {
				return errReported
			}
			return nil
		},
	})
	f := cmd.Flags()
	f.StringVar(&issuerFile, "issuer", "", "certificate of the CA, PEM or DER; of several, the one that the CRL is of")
	f.StringVar(&deltaFile, "delta", "", "delta CRL, a file or URL")
	f.StringVar(&serialFlag, "serial", "", "serial to look up, hex")
	return cmd
}
