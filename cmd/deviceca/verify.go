package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/path"
)

// verifyInput is what `verify` is told.
type verifyInput struct {
	cert, purpose, floor                  string
	roots, chain                          []string
	packs, deltas, crls, crlDeltas        []string
	staples                               []string
	level, policy, unknown, requireStatus string
	grace                                 time.Duration
	at                                    string
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
	// Status is "good", "revoked", "unknown", or "not published" (RFC 9608): the
	// certificate's own, or that of a CA above it if the path fails by that.
	Status     string    `json:"status,omitempty"`
	Sources    []finding `json:"sources,omitempty"`        // on the certificate first, then on the CAs above it
	Rule       string    `json:"status_unknown,omitempty"` // applied
	NotChecked []string  `json:"not_checked,omitempty"`    // CAs of the chain, below the root, whose status nothing given tells
	NotUsed    []string  `json:"not_used,omitempty"`       // what was given and is of no certificate of the chain
}

func (a *app) verifyCommand() *cobra.Command {
	var in verifyInput
	cmd := withJSON(&cobra.Command{
		Use:   "verify --cert FILE --roots FILE",
		Short: "Verify a certificate and its status, with no network",
		Long: `Verify a certificate as a relying party does (RFC 5280 §6), with what lies in files alone: its
chain up to the roots, its purpose, and the status of each certificate of the chain, but the
root's, by revocation packs, CRLs and stapled OCSP answers. It needs neither a CA nor a network.
Exit status 0 is good, 1 is not.

Certificates of the file after the first are taken as intermediates, and so are those among the
roots that are not self-signed. If there are several chains, a good one is enough.

--pack, --delta, --crl, --crl-delta and --staple repeat, and each is used for the certificates whose
issuer it is of: the issuing CA's pack tells of the device, the root's CRL of the issuing
CA. Where the root's CRL is given, it counts; where it is not, the answer says whose status was not
checked, and --require-status all makes that a failure.

What an unknown status means is for the trust level to say (status_unknown in policy.yaml):
deny; allow; or grace, by which a good status counts for a time after its end, and a
certificate for that time after it was issued. A revoked certificate is never good, not even one
that says that its status is not published (noRevAvail).

Signatures with MD5 or SHA-1, and RSA keys below 2048 bits, are refused everywhere. A quarantine
certificate is good for --purpose remediation alone.

--floor-file keeps the newest state of each CA's pack that was seen, and refuses older ones.`,
		Example: `  deviceca verify --cert lamp-1/fullchain.pem --roots root.crt --pack issuing.cbor --crl root.crl --floor-file floor.json
  deviceca verify --cert cert.pem --chain issuing.crt --roots root.crt --pack issuing.cbor --delta d1.cbor --delta d2.cbor
  deviceca verify --cert fullchain.pem --roots root.crt --crl 0.crl --crl-delta 0-delta.crl --crl root.crl --level hsm --policy policy.yaml
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
					of := ""
					if s.Certificate != v.Subject {
						of = " of " + s.Certificate
					}
					fact(s.Source+of, s.text())
				}
				for _, name := range v.NotChecked {
					fact("not checked", "the status of "+name+": give the CRL of its issuer")
				}
				for _, note := range v.NotUsed {
					fact("not used", note)
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
	f.StringArrayVar(&in.packs, "pack", nil, "full revocation packs; a file may hold several (/pack/issuing.cborseq)")
	f.StringSliceVar(&in.deltas, "delta", nil, "delta packs that follow them, in order")
	f.StringArrayVar(&in.crls, "crl", nil, "CRLs, DER or PEM; the root's too")
	f.StringArrayVar(&in.crlDeltas, "crl-delta", nil, "delta CRLs that complete them")
	f.StringArrayVar(&in.staples, "staple", nil, "OCSP answers")
	f.StringVar(&in.requireStatus, "require-status", "leaf", "whose status must be told: leaf; or all, the CAs' below the root too")
	f.StringVar(&in.floor, "floor-file", "", "file that keeps the newest packs seen; made if missing")
	f.StringVar(&in.level, "level", "", "trust level whose rule for an unknown status counts; with --policy")
	f.StringVar(&in.policy, "policy", "", "policy file")
	f.StringVar(&in.unknown, "status-unknown", "", "deny (the default), grace or allow, instead of a level")
	durationFlag(cmd, &in.grace, "grace", 0, "with --status-unknown grace: how long")
	f.StringVar(&in.at, "at", "", "time to verify for (RFC 3339; default now)")
	return cmd
}

// verify works in these steps, and reads nothing that was not named:
//
//  1. the paths, for the purpose;
//  2. for each certificate of a path but the root, its status by each source that is of its
//     issuer; what cannot be trusted is an error, not a status;
//  3. revoked anywhere is revoked; else good anywhere is good; else it is unknown;
//  4. what unknown means is the level's rule;
//  5. one good path is enough.
func verify(ctx context.Context, in verifyInput, now time.Time) (*Verdict, error) {
	if at, err := parseTime("at", in.at); err != nil {
		return nil, err
	} else if at != nil {
		now = *at
	}
	for _, file := range slices.Concat(in.packs, in.deltas, in.crls, in.crlDeltas, in.staples) {
		if strings.Contains(file, "://") {
			return nil, &usageError{fmt.Errorf("%s is a URL, and verify uses no network", file), "fetch it first, for example with curl -O"}
		}
	}
	if in.requireStatus != "leaf" && in.requireStatus != "all" {
		return nil, usagef("--require-status: %q is neither leaf nor all", in.requireStatus)
	}
	rule, err := in.rule()
	if err != nil {
		return nil, err
	}
	m, err := in.certificates()
	if err != nil {
		return nil, err
	}
	v := Verdict{Serial: serialText(m.leaf.SerialNumber), Subject: m.leaf.Subject.String(), Issuer: m.leaf.Issuer.String(), NotAfter: m.leaf.NotAfter}
	paths, err := in.paths(m, now)
	if _, usage := errors.AsType[*usageError](err); usage {
		return nil, err
	}
	if err != nil {
		v.Verdict = "the chain: " + err.Error()
		return &v, nil
	}
	if len(paths[0]) < 2 {
		return nil, usagef("--cert is a root: it has no issuer to tell its status")
	}
	given, err := in.sources(ctx)
	if _, bad := errors.AsType[*inputError](err); bad {
		v.Verdict = err.Error()
		return &v, nil
	}
	if err != nil {
		return nil, err
	}
	best := judgePaths(paths, v, func(v *Verdict, p []*x509.Certificate) { in.judge(v, p, given, rule, now) })
	if err := given.stray(); err != nil {
		best.Good, best.Verdict = false, err.Error()
	}
	best.NotUsed = given.left()
	return &best, nil
}

// judgePaths judges each path and keeps the best: a good one whose CAs were all checked, a good one, the first.
func judgePaths(paths [][]*x509.Certificate, v Verdict, judge func(*Verdict, []*x509.Certificate)) (best Verdict) {
	for i, p := range paths {
		one := v
		for _, c := range p[1:] {
			one.Chain = append(one.Chain, c.Subject.String())
		}
		judge(&one, p)
		if i == 0 || one.Good && (!best.Good || len(one.NotChecked) < len(best.NotChecked)) {
			best = one
		}
	}
	return best
}

// judge judges the status of all certificates of a path but the root.
func (in *verifyInput) judge(v *Verdict, p []*x509.Certificate, given *sources, rule unknownRule, now time.Time) {
	for i, c := range p[:len(p)-1] {
		found, err := given.findings(c, p[i+1], now)
		if err != nil {
			v.Good, v.Verdict = false, err.Error()
			return
		}
		v.Sources = append(v.Sources, found...)
		switch {
		case i == 0:
			rule.decide(v, found, c, now)
		case len(found) == 0:
			v.NotChecked = append(v.NotChecked, c.Subject.String())
		default:
			above := Verdict{Subject: c.Subject.String()}
			if rule.decide(&above, found, c, now); !above.Good {
				v.Good, v.Status, v.Rule = false, above.Status, above.Rule
				v.Verdict = v.Subject + ": of the CAs above it, " + above.Verdict
			}
		}
		if i > 0 && !v.Good {
			return
		}
	}
	if v.Good && len(v.NotChecked) > 0 && in.requireStatus == "all" {
		v.Good, v.Verdict = false, v.Subject+": nothing given tells the status of "+strings.Join(v.NotChecked, ", ")+", which --require-status all demands"
	}
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

// decide weighs what was found and, if that leaves the status unknown, applies the rule.
func (r unknownRule) decide(v *Verdict, found []finding, c *x509.Certificate, now time.Time) {
	known := c.NotBefore // since when we may say that nobody could know
	v.Status = "unknown"
	for _, f := range found {
		switch {
		case f.Status == "revoked":
			v.Status, v.Good = "revoked", false
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
	if path.NoRevAvail(c) {
		v.Good, v.Status, v.Verdict = true, "not published", v.Subject+" is valid; its status is not published (noRevAvail, RFC 9608)"
		return
	}
	v.Rule = r.name
	why := "nothing given tells its status"
	if len(found) > 0 {
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

// finding is what one source says of a certificate.
type finding struct {
	Source      string     `json:"source"`      // "pack", "CRL", "staple"
	Certificate string     `json:"certificate"` // its subject
	Status      string     `json:"status"`      // "good", "revoked", "unknown"
	Revoked     *time.Time `json:"revoked,omitempty"`
	Reason      string     `json:"reason,omitempty"`
	ThisUpdate  time.Time  `json:"this_update"`
	NextUpdate  time.Time  `json:"next_update"`
	Note        string     `json:"note,omitempty"`
	State       string     `json:"state,omitempty"` // hash of a pack's state, by which the next delta is asked for
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
