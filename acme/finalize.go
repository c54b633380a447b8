package acme

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// finalize takes the CSR of an order and has the certificate issued (RFC 8555 §7.4). Done twice, it gives the
// same certificate: an order is fulfilled once, in the transaction that records the certificate.
func (x *exchange) finalize() (*reply, error) {
	if err := x.needBody(); err != nil {
		return nil, err
	}
	raw, err := x.body.octets("csr")
	if err == nil && len(raw) == 0 {
		err = errors.New(`"csr" is missing: the certificate request in DER, as base64url`)
	}
	if err != nil {
		return nil, problem(malformed, "the request: %w", err)
	}
	o, authorizations, err := x.ownOrder()
	if err != nil {
		return nil, err
	}
	switch status := o.StatusAt(authorizations, x.now); {
	case status == Ready:
		return x.issue(o, authorizations, raw)
	default:
		return x.finalized(o, status, raw)
	}
}

// finalized answers the finalize of an order that is not ready: with the order, if this CSR was its own.
func (x *exchange) finalized(o *Order, status Status, raw []byte) (*reply, error) {
	if status == Valid || status == Processing {
		same, err := x.sameKey(o, raw)
		if err != nil {
			return nil, err
		}
		if same {
			return x.showOrder(o, status, nil), nil
		}
	}
	return nil, problem("orderNotReady", "the order is %s, not ready", status)
}

// sameKey reports whether a CSR is for the key that the order was finalized with.
func (x *exchange) sameKey(o *Order, raw []byte) (bool, error) {
	if o.Status == Processing {
		return bytes.Equal(o.CSR, raw), nil
	}
	csr, err := ca.ParseCSR(raw)
	if err != nil {
		return false, badCSR(err)
	}
	c, err := x.Ledger.CertificateBySerial(x.ctx(), o.Serial)
	if err != nil {
		return false, err
	}
	return c.KeyID == sha256.Sum256(csr.SPKI), nil
}

// badCSR makes a problem of what is wrong with a CSR; the order stays ready.
func badCSR(err error) error {
	p := refuse(err)
	if ca.KindOf(err) == ca.Malformed {
		p.Type = "badCSR"
	}
	return p
}

// issue has an order's certificate issued, in these steps:
//
//  1. The CSR asks for the order's names and no others.
//  2. Its key is the one of every attestation among the authorizations.
//  3. The account still stands for the device.
//  4. The core decides and issues. The order becomes valid in the transaction that records the certificate, and
//     not at all if it was fulfilled meanwhile.
func (x *exchange) issue(o *Order, authorizations []*Authorization, raw []byte) (*reply, error) {
	csr, err := ca.ParseCSR(raw)
	if err != nil {
		return nil, badCSR(err)
	}
	r := ca.Request{Protocol: "acme", PublicKey: csr.PublicKey, SPKI: csr.SPKI, Profile: o.Profile,
		NotBefore: o.NotBefore, NotAfter: o.NotAfter, Address: x.r.RemoteAddr,
		With: func(i *ca.Issued) (any, error) { return Fulfilment{o.ID}, exact(o, i.Certificate) }}
	r.Requester, err = x.Authority.AccountRequester(x.ctx(), x.who.ID, x.who.Credential, sans(o.Identifiers))
	if err != nil {
		return nil, err
	}
	x.device = r.Requester.Device
	if !o.NotAfter.IsZero() && !o.NotAfter.After(x.now) {
		return x.notIssued(o, raw, otherPeriod("the notAfter of the order, %s, has passed", o.NotAfter.Format(time.RFC3339)))
	}
	if r.Names, err = csrNames(csr, o.Identifiers, r.Requester.Device); err != nil {
		return nil, err
	}
	if bytes.Equal(csr.SPKI, x.who.Key) {
		return nil, problem("badCSR", "the certificate request is for the account's key: make another (RFC 8555 section 11.1)")
	}
	for _, a := range authorizations {
		if len(a.SPKI) > 0 && !bytes.Equal(a.SPKI, csr.SPKI) {
			return nil, problem("badCSR", "the certificate request is for another key than the one attested for %s %q", a.Identifier.Type, a.Identifier.Value)
		}
		if a.Evidence != nil {
			r.Evidence = append(r.Evidence, aged(*a.Evidence, x.now.Sub(a.Validated)))
		}
	}
	if o.Replaces != "" {
		if _, r.Replaces, err = parseCertID(o.Replaces); err != nil {
			return nil, err
		}
	}
	issued, err := x.Authority.Enroll(x.ctx(), r)
	if err != nil {
		return x.notIssued(o, raw, err)
	}
	c := issued.Certificate
	x.outcome = string(issued.Outcome)
	x.Logger.LogAttrs(x.ctx(), slog.LevelInfo, "issued", slog.String("protocol", "acme"), slog.Int64("account", x.who.ID), slog.Int64("order", o.ID),
		slog.String("device", c.Device), slog.String("serial", c.Serial.String()), slog.String("issuer", c.Issuer), slog.String("profile", c.Profile),
		slog.String("outcome", x.outcome), slog.String("address", x.r.RemoteAddr))
	o.Status, o.Serial = Valid, c.Serial
	if c.NotAfter.After(o.Expires) {
		o.Expires = c.NotAfter
	}
	answer := x.showOrder(o, Valid, nil)
	answer.decision = &c.Decision
	return answer, nil
}

// errPeriod is the cause of refusals to issue for another time than the order asks for.
var errPeriod = errors.New("not as long as ordered")

func otherPeriod(format string, args ...any) error {
	return &ca.Error{Kind: ca.Denied, Reason: fmt.Sprintf(format, args...) + ": make a new order with a notAfter that can be had, or without one", Err: errPeriod}
}

// exact refuses a certificate for another time than the order asks for (RFC 8555 §7.4). At newOrder it is not known yet
// which rule of the policy will decide, nor how long the issuing CA will last.
func exact(o *Order, c *ca.Certificate) error {
	switch {
	case !o.NotAfter.IsZero() && !o.NotAfter.Equal(c.NotAfter):
		return otherPeriod("the order asks for a certificate until %s, and policy allows one until %s (rule %s)", o.NotAfter.Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339), c.Decision.Rule)
	case !o.NotBefore.IsZero() && !o.NotBefore.Equal(c.NotBefore):
		return otherPeriod("the order asks for a certificate from %s on, and this one would begin at %s", o.NotBefore.Format(time.RFC3339), c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// notIssued makes of the core's answer what becomes of the order.
func (x *exchange) notIssued(o *Order, csr []byte, err error) (*reply, error) {
	// From here on the client's leaving changes nothing.
	ctx := context.WithoutCancel(x.ctx())
	switch kind := ca.KindOf(err); {
	case errors.Is(err, ca.ErrAnswered): // on another connection
		return x.asItIs(o, csr)
	case kind == ca.Pending:
		if o.Status == Open {
			if err := x.Ledger.HoldOrder(ctx, o.ID, csr); errors.Is(err, ErrStale) {
				return x.asItIs(o, csr)
			} else if err != nil {
				return nil, err
			}
		}
		o.Status, o.CSR = Processing, csr
		answer := x.showOrder(o, Processing, nil)
		answer.retryAfter = ca.AsError(err).RetryAfter
		x.outcome = kind.String()
		return answer, nil
	case kind == ca.RateLimited, kind == ca.Unavailable, kind == ca.Internal:
		return nil, err
	}
	why := refuse(err)
	switch rule := ca.AsError(err).Rule; {
	case strings.HasPrefix(rule, "profiles."): // another CSR would do
		if why.Type == unauthorized {
			why.Type, why.Status = "badCSR", statuses["badCSR"]
		}
	case strings.HasPrefix(rule, "levels.") && strings.HasSuffix(rule, ".profiles"):
		why.Type, why.Status = "invalidProfile", statuses["invalidProfile"]
	case errors.Is(err, errPeriod):
		why.Type, why.Status = malformed, statuses[malformed]
	}
	if o.Status == Processing || ca.KindOf(err) == ca.Denied && why.Type != "badCSR" {
		if err := x.Ledger.FailOrder(ctx, o.ID, why); errors.Is(err, ErrStale) {
			return x.asItIs(o, csr)
		} else if err != nil {
			return nil, err
		}
		if o.Status == Processing { // the client asked how the order is, and this is the answer
			o.Status, o.Error = Invalid, why
			return x.showOrder(o, Invalid, nil), nil
		}
	}
	return nil, why
}

// asItIs answers for an order that another connection has changed since it was read: with the order as the ledger has it
// now, to whoever asked how it is, or finalized it with the same key.
func (x *exchange) asItIs(was *Order, csr []byte) (*reply, error) {
	o, authorizations, err := x.orderByID(was.ID)
	if err != nil {
		return nil, err
	}
	status := o.StatusAt(authorizations, x.now)
	if was.Status == Processing {
		return x.showOrder(o, status, authorizations), nil
	}
	return x.finalized(o, status, csr)
}

// csrNames are the names of a CSR for the core. They must be those of the order, octet for octet but for the case
// of DNS names; what names the device itself may be left out of the certificate (draft-ietf-acme-device-attest
// §3.2). A common name may say the device, or a name of the order (RFC 8555 §7.4). Other attributes of the subject count for
// nothing: an order cannot ask for them, clients put their own name there, and the profile writes the whole subject.
func csrNames(csr *ca.CSR, ids []Identifier, deviceID string) (ca.Names, error) {
	var names ca.Names
	for _, attr := range csr.Names.Subject {
		if attr.Attr != "cn" || device.SameID(attr.Value, deviceID) || slices.ContainsFunc(ids, func(id Identifier) bool {
			return id.Type == "dns" && strings.EqualFold(id.Value, attr.Value) || id.Value == attr.Value
		}) {
			continue
		}
		return names, problem("badCSR", "the common name %q is neither the device nor a name of the order: leave it out", attr.Value)
	}
	var asked []Identifier
	for _, n := range csr.Names.SANs {
		id := Identifier{n.Form, n.Value}
		if id.Type == "dns" {
			id.Value = strings.ToLower(id.Value)
		}
		if !slices.Contains(ids, id) {
			return names, problem("badCSR", "the certificate request asks for %s %q, which is not in the order", n.Form, n.Value)
		}
		if !slices.Contains(asked, id) {
			asked = append(asked, id)
		}
	}
	for _, id := range ids {
		if slices.Contains(asked, id) || id.Type == "permanent-identifier" || id.Type == "hardware-module" {
			continue
		}
		inCN := id.Type == "dns" && strings.EqualFold(csr.Names.CommonName(), id.Value)
		if !inCN {
			return names, problem("badCSR", "the certificate request lacks %s %q of the order", id.Type, id.Value)
		}
		asked = append(asked, id)
	}
	names.SANs = sans(asked)
	return names, nil
}

// aged is evidence as it is some time after it was verified: what facts call an age has grown.
func aged(e policy.Evidence, by time.Duration) policy.Evidence {
	facts := make(map[string]any, len(e.Facts))
	for name, fact := range e.Facts {
		if age, ok := fact.(time.Duration); ok && strings.HasSuffix(name, "_age") {
			fact = age + max(0, by)
		}
		facts[name] = fact
	}
	e.Facts = facts
	return e
}
