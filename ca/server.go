package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/policy"
)

// serverProfile is what our own TLS listener shows. It is built in, since a
// server must not depend on a policy file to come up, and no policy can grant it.
var serverProfile = policy.Profile{
	Name:     "deviceca-server",
	Issuer:   "issuing",
	Keys:     []string{"ecdsa-p256"},
	Subject:  []policy.SubjectTemplate{{Attr: "cn", Value: "{device.id}"}},
	SAN:      []string{"dns", "ip"},
	KeyUsage: []string{"digitalSignature"},
	EKU:      []string{"serverAuth"},
	Backdate: 5 * time.Minute,
}

// serverLife is the life that the server's profile is linted with.
const serverLife = 7 * 24 * time.Hour

// IssueServer issues a certificate of the built-in server profile for our own
// listener, recorded like every other. The first name is its common name.
func (s *Service) IssueServer(ctx context.Context, pub crypto.PublicKey, names []SAN, validity time.Duration) (*Issued, error) {
	now, st := s.now(), s.current.Load()
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("server key: %w", err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the server has no name")
	}
	profile := st.profiles[serverProfile.Name]
	decision := policy.Decision{Outcome: policy.Issue, Rule: "built-in server profile", Profile: profile.Name, Validity: validity, Version: st.policy.Version()}
	r := Request{Protocol: "system", PublicKey: pub, SPKI: spki, Names: Names{SANs: names}}
	dev := policy.Device{ID: names[0].Value}
	t, err := s.template(ctx, profile, decision, r, dev, now)
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
	cert := &Certificate{Serial: t.serial, Issuer: profile.issuer.Record.Name, KeyID: keyID(spki), Profile: profile.Name,
		Protocol: r.Protocol, Requester: "system", Actor: "system", IssuedAt: now, NotBefore: t.notBefore, NotAfter: t.notAfter,
		Request: r.digest(), Decision: decision, Input: in, DER: der}
	if err := s.ledger.Record(ctx, &Issuance{Certificate: cert, Event: s.event(EventIssued, r, cert)}); err != nil {
		return nil, err
	}
	s.counts.issued.Add(1)
	return s.handOut(st, cert, false), nil
}
