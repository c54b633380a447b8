package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// verifyInput is what `verify` is told.
type verifyInput struct {
	cert, purpose, crl, crlDelta, staple, pack, floor string
	roots, chain, deltas                              []string
	level, policy, unknown                            string
	grace                                             time.Duration
	at                                                string
}

// Verdict is what verify says of a certificate.
type Verdict struct {
	Good     bool      `json:"good"`
	Verdict  string    `json:"verdict"` // in one line
	Serial   string    `json:"serial"`
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after"`
	Chain    []string  `json:"chain,omitempty"` // subjects, the root last
	// Status is "good", "revoked", "unknown", or "not published" (RFC 9608).
	Status  string    `json:"status,omitempty"`
	Sources []finding `json:"sources,omitempty"`
	Rule    string    `json:"status_unknown,omitempty"` // applied
}

func (a *app) verifyCommand() *cobra.Command {
	var in verifyInput
	cmd := withJSON(&cobra.Command{
		Use:   "verify --cert FILE --roots FILE",
		Short: "Verify a certificate and its status, with no network",
		Long: `Verify a certificate as a relying party does, with what lies in files alone: its chain up
to the roots, its purpose, and its status by a revocation pack, a CRL or a stapled OCSP
answer. It needs neither a CA nor a network. Exit status 0 is good, 1 is not.

Certificates of the file after the first are taken as intermediates, and so are those among the
roots that are not self-signed.

What an unknown status means is for the trust level to say (status_unknown in policy.yaml):
deny; allow; or grace, by which a good status counts for a time after its end, and a
certificate for that time after it was issued. A revoked certificate is never good.

--floor-file keeps the newest state of each CA's pack that was seen, and refuses older ones.`,
		Example: `  deviceca verify --cert lamp-1/fullchain.pem --roots root.crt --pack issuing.cbor --floor-file floor.json
  deviceca verify --cert cert.pem --chain issuing.crt --roots root.crt --pack issuing.cbor --delta d1.cbor --delta d2.cbor
  deviceca verify --cert fullchain.pem --roots root.crt --crl 0.crl --crl-delta 0-delta.crl --level hsm --policy policy.yaml
  deviceca verify --cert fullchain.pem --roots root.crt --staple staple.der --status-unknown grace --grace 24h`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "cert"); err != nil {
				return err
			}
			if len(in.roots) == 0 {
				return usagef("--roots is missing")
			}
			v, err := verify(cmd.Context(), in, a.now())
			if err != nil {
				return err
			}
			o := a.output(cmd)
			if err := o.print(v, func(fact func(name, value string)) {
				fact(map[bool]string{true: "good", false: "NOT GOOD"}[v.Good], v.Verdict)
				for _, s := range v.Sources {
					fact(s.Source, s.text())
				}
			}); err != nil {
				return err
			}
			if !v.Good {
				return errReported
			}
			return nil
		},
	})
	f := cmd.Flags()
	f.StringVar(&in.cert, "cert", "", "certificate, PEM or DER; its intermediates may follow it")
	f.StringSliceVar(&in.roots, "roots", nil, "certificates to trust, PEM or DER")
	f.StringSliceVar(&in.chain, "chain", nil, "further intermediates")
	f.StringVar(&in.purpose, "purpose", "clientAuth", "clientAuth, serverAuth, remediation, any, or an OID")
	f.StringVar(&in.pack, "pack", "", "full revocation pack")
	f.StringSliceVar(&in.deltas, "delta", nil, "delta packs that follow it, in order")
	f.StringVar(&in.crl, "crl", "", "CRL")
	f.StringVar(&in.crlDelta, "crl-delta", "", "delta CRL that completes it")
	f.StringVar(&in.staple, "staple", "", "OCSP answer")
	f.StringVar(&in.floor, "floor-file", "", "file that keeps the newest packs seen; made if missing")
	f.StringVar(&in.level, "level", "", "trust level whose rule for an unknown status counts; with --policy")
	f.StringVar(&in.policy, "policy", "", "policy file")
	f.StringVar(&in.unknown, "status-unknown", "", "deny (the default), grace or allow, instead of a level")
	f.DurationVar(&in.grace, "grace", 0, "with --status-unknown grace: how long")
	f.StringVar(&in.at, "at", "", "time to verify for (RFC 3339; default now)")
	return cmd
}

// verify works in these steps, and reads nothing that was not named:
//
//  1. the chain and the purpose;
//  2. the status by each source given; what cannot be trusted is an error, not a status;
//  3. revoked anywhere is revoked; else good anywhere is good; else it is unknown;
//  4. what unknown means is the level's rule.
func verify(ctx context.Context, in verifyInput, now time.Time) (*Verdict, error) {
	if at, err := parseTime("at", in.at); err != nil {
		return nil, err
	} else if at != nil {
		now = *at
	}
	for _, file := range append([]string{in.pack, in.crl, in.crlDelta, in.staple}, in.deltas...) {
		if strings.Contains(file, "://") {
			return nil, &usageError{fmt.Errorf("%s is a URL, and verify uses no network", file), "fetch it first, for example with curl -O"}
		}
	}
	rule, err := in.rule()
	if err != nil {
		return nil, err
	}
	chain, err := readCerts(in.cert)
	if err != nil {
		return nil, err
	}
	leaf := chain[0]
	v := &Verdict{Serial: serialText(leaf.SerialNumber), Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), NotAfter: leaf.NotAfter}
	path, err := in.path(leaf, chain[1:], now)
	if _, usage := errors.AsType[*usageError](err); usage || errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		v.Verdict = "the chain: " + err.Error()
		return v, nil
	}
	for _, c := range path[1:] {
		v.Chain = append(v.Chain, c.Subject.String())
	}
	if slices.ContainsFunc(leaf.Extensions, isNoRevAvail) {
		v.Good, v.Status, v.Verdict = true, "not published", v.Subject+" is valid; its status is not published (noRevAvail, RFC 9608)"
		return v, nil
	}
	if len(path) < 2 {
		return nil, usagef("--cert is a root: it has no issuer to tell its status")
	}
	if v.Sources, err = in.findings(ctx, leaf, path[1], now); err != nil {
		v.Verdict = err.Error()
		return v, nil
	}
	rule.decide(v, leaf, now)
	return v, nil
}

// path finds a chain for the purpose, the leaf first.
func (in *verifyInput) path(leaf *x509.Certificate, more []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range more {
		intermediates.AddCert(c)
	}
	for _, file := range in.chain {
		certs, err := readCerts(file)
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			intermediates.AddCert(c)
		}
	}
	var anchors []*x509.Certificate
	for _, file := range in.roots {
		certs, err := readCerts(file)
		if err != nil {
			return nil, err
		}
		anchors = append(anchors, certs...)
	}
	selfSigned := func(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }
	only := slices.ContainsFunc(anchors, selfSigned)
	for _, c := range anchors {
		if only && !selfSigned(c) {
			intermediates.AddCert(c)
		} else {
			roots.AddCert(c)
		}
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	oid := ""
	switch in.purpose {
	case "clientAuth":
		opts.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case "serverAuth":
		opts.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case "any":
	case "remediation":
		oid = policy.RemediationEKU
	default:
		if oid = in.purpose; strings.Trim(oid, "0123456789.") != "" || !strings.Contains(oid, ".") {
			return nil, usagef("--purpose: %q is none; use clientAuth, serverAuth, remediation, any, or an OID", in.purpose)
		}
	}
	paths, err := leaf.Verify(opts)
	if err != nil {
		return nil, err
	}
	if oid != "" {
		// crypto/x509 knows no purposes but its own: here the leaf and all above
		// it that are limited to purposes must have this one.
		paths = slices.DeleteFunc(paths, func(path []*x509.Certificate) bool {
			return slices.ContainsFunc(path, func(c *x509.Certificate) bool { return !hasPurpose(c, oid, c == leaf) })
		})
		if len(paths) == 0 {
			return nil, fmt.Errorf("the certificate, or a CA above it, is not for purpose %s", oid)
		}
	}
	return paths[0], nil
}

func hasPurpose(c *x509.Certificate, oid string, must bool) bool {
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 {
		return !must
	}
	for _, u := range c.UnknownExtKeyUsage {
		if u.String() == oid {
			return true
		}
	}
	return slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) && !must
}

// unknownRule is what an unknown status means.
type unknownRule struct {
	name  string // "deny", "grace", "allow"
	grace time.Duration
}

func (in *verifyInput) rule() (unknownRule, error) {
	r := unknownRule{in.unknown, in.grace}
	switch {
	case in.level != "" && in.unknown != "":
		return r, usagef("--level and --status-unknown exclude each other")
	case (in.level == "") != (in.policy == ""):
		return r, usagef("--level and --policy go together")
	case in.level != "":
		rules, err := readPolicy(in.policy)
		if err != nil {
			return r, err
		}
		level, ok := rules.Level(in.level)
		if !ok {
			return r, usagef("--level: the policy has no level %q; it has %s", in.level, strings.Join(rules.Levels(), ", "))
		}
		r = unknownRule{level.StatusUnknown, level.Grace}
	case r.name == "":
		r.name = "deny"
	}
	switch {
	case !slices.Contains([]string{"deny", "grace", "allow"}, r.name):
		return r, usagef("--status-unknown: %q is none of deny, grace, allow", r.name)
	case (r.name == "grace") != (r.grace > 0):
		return r, usagef("--status-unknown grace and --grace DURATION go together")
	}
	return r, nil
}

// decide weighs the findings and, if they leave the status unknown, applies the rule.
func (r unknownRule) decide(v *Verdict, leaf *x509.Certificate, now time.Time) {
	known := leaf.NotBefore // since when we may say that nobody could know
	v.Status = "unknown"
	for _, f := range v.Sources {
		switch {
		case f.Status == "revoked":
			v.Status = "revoked"
			v.Verdict = v.Subject + " is revoked, says the " + f.Source
			if f.Reason != "" {
				v.Verdict += " (" + f.Reason + ")"
			}
			return
		case f.Status == "good" && !now.After(f.NextUpdate):
			v.Status, v.Good, v.Verdict = "good", true, v.Subject+" is valid and not revoked, says the "+f.Source
		case f.Status == "good" && f.NextUpdate.After(known):
			known = f.NextUpdate
		}
	}
	if v.Status == "good" {
		return
	}
	v.Rule = r.name
	why := "nothing given tells its status"
	if len(v.Sources) > 0 {
		why = "its status is unknown"
	}
	switch r.name {
	case "allow":
		v.Good, v.Verdict = true, v.Subject+" is valid; "+why+", which is allowed"
	case "grace":
		if until := known.Add(r.grace); !now.After(until) {
			v.Good, v.Verdict = true, v.Subject+" is valid; "+why+", and has grace until "+instant(until)
			return
		}
		v.Verdict = v.Subject + ": " + why + ", and the grace of " + durationText(r.grace) + " is over"
	default:
		v.Verdict = v.Subject + ": " + why + ", which is denied"
	}
}

// finding is what one source says of the certificate.
type finding struct {
	Source     string     `json:"source"` // "pack", "CRL", "staple"
	Status     string     `json:"status"` // "good", "revoked", "unknown"
	Revoked    *time.Time `json:"revoked,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	ThisUpdate time.Time  `json:"this_update"`
	NextUpdate time.Time  `json:"next_update"`
	Note       string     `json:"note,omitempty"`
	State      string     `json:"state,omitempty"` // hash of a pack's state, by which the next delta is asked for
}

func (f finding) text() string {
	s := f.Status
	if f.Revoked != nil {
		s += " at " + instant(*f.Revoked)
	}
	s += fmt.Sprintf(", as of %s, until %s", instant(f.ThisUpdate), instant(f.NextUpdate))
	if f.Note != "" {
		s += "; " + f.Note
	}
	if f.State != "" {
		s += "; state " + f.State
	}
	return s
}

func reasonText(code int) string {
	if code == ca.ReasonUnspecified {
		return ""
	}
	return ca.ReasonName(code)
}
