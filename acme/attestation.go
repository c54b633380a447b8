package acme

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/deviceca/deviceca/attest"
	"github.com/deviceca/deviceca/ca"
)

// attest takes evidence for an authorization (draft-ietf-acme-device-attest §5), judges it at once, and stores
// what came of it. Evidence that does not do makes the authorization invalid, and the client is told why.
func (x *exchange) attest(a *Authorization, c *Challenge) (*reply, error) {
	raw, err := x.body.octets("attObj")
	if err == nil && len(raw) == 0 {
		err = errors.New(`"attObj" is missing: the attestation object, in base64url`)
	}
	if err != nil {
		return nil, problem(malformed, "the response: %w", err)
	}
	quote, err := x.body.octets("quote") // ours: the state of the device rides along
	if err != nil {
		return nil, problem(malformed, "the response: %w", err)
	}
	result, err := x.judge(a, c, raw, quote)
	refused := refusal(err)
	switch {
	case err != nil && refused == nil:
		return nil, err
	case refused != nil:
		x.failed(a, c, refused)
	default:
		x.met(a, c)
		a.SPKI, a.Evidence = result.SPKI, &result.Evidence
	}
	// What was decided stays so, even if the client has gone.
	if err := x.Ledger.SaveAuthorization(context.WithoutCancel(x.ctx()), a); errors.Is(err, ErrStale) {
		return nil, meanwhile()
	} else if err != nil {
		return nil, err
	}
	if refused != nil {
		return nil, refused
	}
	return x.showChallenge(a, *c), nil
}

// refusal is the problem of evidence that does not do; nil for faults that are not the client's.
func refusal(err error) *Problem {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*Problem](err); ok && p.Type == badAttestation {
		return p
	}
	if errors.Is(err, attest.ErrEvidence) {
		return problem(badAttestation, "%w", err)
	}
	if ca.KindOf(err) == ca.BadEvidence {
		return refuse(err)
	}
	return nil
}

// judge verifies evidence, and that it is of this very device:
//
//  1. Decode it, and find who judges its format, and who may vouch by it.
//  2. Verify it against the key authorization: fresh, and of this account's key.
//  3. It must name the identifier of the authorization, octet for octet.
//  4. The manufacturer must vouch for such a device, of the level that it has.
func (x *exchange) judge(a *Authorization, c *Challenge, raw, quote []byte) (*attest.Result, error) {
	o, err := attest.ParseObject(raw)
	if err != nil {
		return nil, err
	}
	formats, err := x.formats()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(formats, func(f format) bool { return f.Format() == o.Format })
	if i < 0 {
		return nil, problem(badAttestation, "evidence of format %.40q is not accepted here", o.Format)
	}
	statement := attest.Statement{Raw: o.Statement, AuthData: o.AuthData, Quote: quote,
		Challenge: []byte(keyAuthorization(c.Token, x.who.Thumbprint)), Now: x.now}
	for _, m := range formats[i].manufacturers {
		statement.Anchors = append(statement.Anchors, attest.Anchor{Manufacturer: m.Name, Certificates: m.Certificates, Revoked: m.Revoked})
	}
	result, err := formats[i].Verify(statement)
	if err != nil {
		return nil, err
	}
	if len(result.SPKI) == 0 {
		return nil, problem(badAttestation, "the evidence attests no key")
	}
	if len(result.Identifiers) == 0 {
		return nil, problem(badAttestation, "the evidence does not say whose device it is")
	}
	if !slices.Contains(result.Identifiers, attest.Identifier(a.Identifier)) {
		return nil, problem(badAttestation, "the evidence is of another device than %s %q", a.Identifier.Type, a.Identifier.Value)
	}
	return result, x.vouched(a, result, formats[i].manufacturers)
}

// vouched checks what was registered of the manufacturer whose anchor the evidence leads to.
func (x *exchange) vouched(a *Authorization, result *attest.Result, manufacturers []ca.Attesting) error {
	i := slices.IndexFunc(manufacturers, func(m ca.Attesting) bool { return m.Name == result.Manufacturer })
	if i < 0 {
		return problem(badAttestation, "nobody who is registered vouches for this evidence")
	}
	names := []ca.SAN{{Form: "permanent-identifier", Value: a.Device}}
	requester, err := x.Authority.AccountRequester(x.ctx(), x.who.ID, x.who.Credential, names)
	if err != nil {
		return err
	}
	prospect, err := x.Authority.Consider(x.ctx(), ca.Request{Protocol: "acme", Requester: requester})
	if err != nil {
		return err
	}
	serial, _, _ := strings.Cut(a.Identifier.Value, "/")
	return manufacturers[i].Allows(result.Attester, serial, prospect.Device)
}
