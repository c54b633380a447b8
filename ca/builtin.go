package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/policy"
)

// Builtin names a profile for a certificate of the CA's own. They are built in,
// since a server must not depend on a policy file to come up, and no policy can
// grant them to a device.
type Builtin string

const (
	BuiltinServer Builtin = "deviceca-server" // our TLS listener
	BuiltinOCSP   Builtin = "deviceca-ocsp"   // delegated OCSP responder (RFC 6960 §4.2.2.2)
	BuiltinPack   Builtin = "deviceca-pack"   // signer of revocation packs (docs/revocation-pack.md)
	BuiltinCMC    Builtin = "deviceca-cmc"    // signer of CMC answers and of keys made for devices (RFC 6402 §2.10, RFC 9483 §4.1.6)
	BuiltinCMP    Builtin = "deviceca-cmp"    // signer of CMP answers (RFC 9483 §1.5)
	BuiltinKGA    Builtin = "deviceca-kga"    // signer of keys made for devices over CMP (RFC 9483 §4.1.6)
)

// PackSigningEKU is what a revocation pack's delegated signer may do.
const PackSigningEKU = "1.3.6.1.4.1.55555.1.2"

// builtinLife is the longest life that these profiles are linted with and issued for.
const builtinLife = 30 * 24 * time.Hour

// builtins are the profiles. A responder's certificate is not itself looked up
// (ocsp-nocheck): it is short-lived instead.
var builtins = []struct {
	policy.Profile
	noCheck bool
}{
	{Profile: policy.Profile{Name: string(BuiltinServer), EKU: []string{"serverAuth"}, SAN: []string{"dns", "ip"}}},
	{Profile: policy.Profile{Name: string(BuiltinOCSP), EKU: []string{"ocspSigning"}}, noCheck: true},
	{Profile: policy.Profile{Name: string(BuiltinPack), EKU: []string{PackSigningEKU}}},
	{Profile: policy.Profile{Name: string(BuiltinCMC), EKU: []string{"cmcCA", "cmKGA"}}},
	{Profile: policy.Profile{Name: string(BuiltinCMP), EKU: []string{"cmcCA"}}},
	{Profile: policy.Profile{Name: string(BuiltinKGA), EKU: []string{"cmKGA"}}},
}

// minBackdate is how far before now the CA's own certificates begin at least.
const minBackdate = 5 * time.Minute

var oidOCSPNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}

// IsBuiltin reports whether a profile's certificates are the CA's own.
func IsBuiltin(profile string) bool {
	for _, b := range builtins {
		if b.Name == profile {
			return true
		}
	}
	return false
}

// compileBuiltin makes a built-in profile for an issuer. But for how far they are backdated, they are the same for
// every policy, and compiled when they are needed: a few times a week.
func (s *Service) compileBuiltin(which Builtin, issuer *Issuer, rules *policy.Policy) (*Profile, error) {
	for _, b := range builtins {
		if b.Name != string(which) {
			continue
		}
		spec := b.Profile
		spec.Keys, spec.KeyUsage, spec.Backdate = []string{"ecdsa-p256"}, []string{"digitalSignature"}, max(minBackdate, rules.Backdate())
		spec.Subject = []policy.SubjectTemplate{{Attr: "cn", Value: "{device.id}"}}
		p, err := newProfile(spec, issuer, s.opts.URL)
		if err != nil {
			return nil, err
		}
		if b.noCheck {
			p.append(oidOCSPNoCheck, []byte{5, 0}) // NULL, RFC 6960 §4.2.2.2.1
		}
		return p, p.lint(s.now(), builtinLife)
	}
	return nil, fmt.Errorf("there is no built-in profile %q", which)
}

// IssueBuiltin issues a certificate of the CA's own, recorded like every
// other: by the issuer named ("issuing" is its newest generation), for a P-256
// key, for at most 30 days. The first name is the common name; without names it
// is the issuer's name and the purpose.
func (s *Service) IssueBuiltin(ctx context.Context, which Builtin, issuerName string, pub crypto.PublicKey, names []SAN, validity time.Duration) (*Issued, error) {
	now, st := s.now(), s.current.Load()
	issuer := st.issuers[issuerName]
	if issuer == nil || issuer.signer == nil {
		return nil, Errorf(NotFound, "there is no CA %q with a key here", issuerName)
	}
	if validity <= 0 || validity > builtinLife {
		return nil, fmt.Errorf("a life of %s: at most %s", validity, builtinLife)
	}
	profile, err := s.compileBuiltin(which, issuer, st.policy)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if algorithm, err := policy.KeyAlgorithm(pub); err != nil || algorithm != profile.Keys[0] {
		return nil, errors.Join(err, fmt.Errorf("a key of %s; built-in profiles take %s", algorithm, profile.Keys[0]))
	}
	subject := issuer.Record.Name + " " + string(which)
	if len(names) > 0 {
		subject = names[0].Value
	}
	decision := policy.Decision{Outcome: policy.Issue, Rule: "built-in profile", Profile: profile.Name, Validity: validity, Version: st.policy.Version()}
	r := Request{Protocol: "system", PublicKey: pub, SPKI: spki, Names: Names{SANs: names}}
	t, err := s.template(ctx, profile, decision, r, policy.Device{ID: subject}, now)
	if err != nil {
		return nil, err
	}
	der, err := s.sign(profile, t, now)
	if err != nil {
		return nil, err
	}
	in, err := json.Marshal(policy.Input{Now: now, Protocol: r.Protocol, Names: t.names.List()})
	if err != nil {
		return nil, err
	}
	cert := &Certificate{Serial: t.serial, Issuer: issuer.Record.Name, KeyID: keyID(spki), Profile: profile.Name,
		Protocol: r.Protocol, Requester: "system", Actor: "system", IssuedAt: now, NotBefore: t.notBefore, NotAfter: t.notAfter,
		Request: r.digest(), Decision: decision, Input: in, DER: der}
	if err := s.ledger.Record(ctx, &Issuance{Certificate: cert, Event: s.event(EventIssued, r, cert)}); err != nil {
		return nil, err
	}
	s.counts.issued.Add(1)
	return s.handOut(st, cert, false), nil
}

// lintBuiltins is part of starting: a CA that could not renew its own
// certificates should say so at once.
func (s *Service) lintBuiltins(st *state) error {
	var faults []error
	for _, issuer := range st.ordered {
		if issuer.signer == nil {
			continue
		}
		for _, b := range builtins {
			if _, err := s.compileBuiltin(Builtin(b.Name), issuer, st.policy); err != nil {
				faults = append(faults, err)
			}
		}
	}
	return errors.Join(faults...)
}
