package acme

import (
	"github.com/deviceca/deviceca/device"
)

// Bounds of a binding, in octets: of its key identifier, and of all of it, since it is kept with the account. One for the
// largest RSA key has 1300.
const (
	maxReference = 128
	maxBinding   = 4096
)

// binding verifies the external account binding (RFC 8555 §7.3.4) and gives the credential that the
// account will stand for; nil if there is none, and need not be.
//
// The binding is a JWS within the payload, over the account's public key, with the credential's HMAC key.
func (x *exchange) binding() (*device.Credential, error) {
	raw := x.body.raw("externalAccountBinding")
	if raw == nil {
		if x.OpenAccounts {
			return nil, nil
		}
		return nil, problem(externalAccount, "accounts are bound to an enrolment credential: give its kid and HMAC key (externalAccountBinding)")
	}
	if len(raw) > maxBinding {
		return nil, problem(malformed, "the external account binding has %d octets: at most %d are accepted", len(raw), maxBinding)
	}
	m, err := parseJWS(raw)
	if err != nil {
		p := refuse(err)
		p.Detail = "the external account binding: " + p.Detail
		return nil, p
	}
	switch {
	case m.alg != "HS256":
		p := problem(badAlgorithm, "the external account binding is made with %.40q: use HS256", m.alg)
		p.Algorithms = []string{"HS256"}
		return nil, p
	case m.nonce != "":
		return nil, problem(malformed, "the external account binding has a nonce, and must not")
	case m.jwk != nil || m.kid == "" || len(m.kid) > maxReference:
		return nil, problem(malformed, `the external account binding must name the credential as "kid", and have no "jwk"`)
	case m.url != x.message.url:
		return nil, problem(malformed, "the external account binding is for another URL than the request")
	}
	// The MAC comes first: what follows is for whoever knows the secret alone.
	requester, secret, usable := x.Authority.CredentialSecret(x.ctx(), m.kid)
	if usable != nil && secret == "" {
		return nil, usable
	}
	if !m.verifyMAC(secret.HMACKey()) || usable == nil && requester.Credential == nil {
		return nil, x.Authority.WrongSecret(m.kid, x.from)
	}
	if usable != nil {
		return nil, usable
	}
	key, err := parseJWK(m.body)
	if err != nil || key.thumbprint != x.key.thumbprint {
		return nil, problem(malformed, "the external account binding is for another key than the account's")
	}
	return requester.Credential, nil
}
