package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/der"
)

// exchange is one message and its answer.
type exchange struct {
	*Server
	target
	raw     []byte
	address string
	now     time.Time
	depth   int           // of messages around this one
	outcome string        // for Observe
	room    *atomic.Int64 // octets of CRLs that the answer may still hold

	in        *cmp.Message
	asked     *cmp.Message  // what began the transaction, where in is a pollReq or popdecr; else in
	by        *cmp.Verified // by what the message is protected; nil until that is known
	macFailed bool          // the MAC was looked at, and is not right
	requester ca.Requester
	secret    device.Secret // with a MAC
	mac       cmp.MACPolicy // with the work bounded for the requester
	actor     string        // who that is, in the terms of Transaction.Actor
	approvers []*ca.RA      // of the nested messages around this one
	original  original      // with an RA as requester
	seen      *Seen         // of a message without messageTime that begins a transaction
}

// op names the request for logs and metrics.
func (x *exchange) op() string {
	if x.in == nil {
		return "other"
	}
	return x.in.Body.Type().String()
}

// run is the straight line of one message. It returns what to send, and, for the
// log, why that is a refusal.
func (x *exchange) run(ctx context.Context) ([]byte, error) {
	answer, err := x.steps(ctx)
	if err == nil {
		return answer, nil
	}
	x.recognize(ctx)
	refusal := x.reply(&cmp.ErrorBody{Status: status(err, x.signed())})
	x.outcome = refusal.Body.(*cmp.ErrorBody).Status.FailInfo.String()
	if protectErr := x.protect(refusal); protectErr != nil {
		return nil, errors.Join(err, protectErr)
	}
	return refusal.Raw(), err
}

func (x *exchange) steps(ctx context.Context) (answer []byte, err error) {
	x.outcome = "ok"
	// 1. What is said, in strict DER and within bounds.
	if x.in == nil { // else it came within another
		if x.in, err = limits.Parse(x.raw); err != nil {
			x.in = nil
			return nil, err
		}
	}
	x.asked = x.in
	if b, ok := x.in.Body.(*cmp.NestedMessages); ok {
		return x.nested(ctx, b)
	}

	// 2. The header by itself. After the time, for what is older than the window
	// was forgotten and must not come again. Who may leave the time out is known in step 5.
	begins := beginsTransaction(x.in.Body)
	rules := cmp.HeaderRules{First: begins, Now: func() time.Time { return x.now }, TimeWindow: x.TimeWindow}
	if err := x.in.Header.Check(rules); err != nil {
		return nil, err
	}
	if err := x.in.Header.GeneralInfo.CheckSyntax(); err != nil {
		return nil, err
	}

	// 3. Was this very message answered before, and the answer perhaps lost? It was
	// authenticated then: a certificate that has revoked itself since cannot be again.
	there, err := x.earlier(ctx)
	if err != nil {
		return nil, err
	}
	if there != nil {
		if answer, err := x.again(ctx, there); answer != nil || err != nil {
			return answer, err
		}
	}

	// 4. Who says it.
	if err := x.authenticate(ctx, there); err != nil {
		return nil, err
	}
	if err := x.checkApproval(); err != nil {
		return nil, err
	}
	if err := x.checkOriginal(ctx); err != nil {
		return nil, err
	}

	// 5. Is it what the path says, and in place?
	if !x.allows(x.in.Body.Type()) {
		return nil, refuse(cmp.BadRequest, "RFC 9811 §3.3", "%s is not for the path of operation %s", x.op(), x.operation)
	}
	switch {
	case !begins && there != nil:
		if err := x.checkFresh(there); err != nil {
			return nil, err
		}
	case begins && there != nil && there.Request != x.digest():
		return nil, errInUse
	case begins && there == nil && x.in.Header.Time.IsZero():
		if answer, err := x.checkTimeless(ctx); answer != nil || err != nil {
			return answer, err
		}
	}

	// 6. Do it.
	switch b := x.in.Body.(type) {
	case *cmp.CertRequests:
		if b.Of != cmp.KRR && b.Of != cmp.CCR { // key recovery and cross-certification (RFC 9810 §5.3.7, §5.3.11)
			return x.enroll(ctx)
		}
	case *cmp.PKCS10:
		return x.enroll(ctx)
	case *cmp.Confirmations:
		return x.confirm(ctx, there, b)
	case *cmp.Revocations:
		return x.revoke(ctx, b)
	case *cmp.General:
		if !b.Response {
			return x.general(ctx, b)
		}
	case *cmp.ChallengeAnswers:
		return x.proven(ctx, there, b)
	case *cmp.PollRequests:
		return x.poll(ctx, there, b)
	case *cmp.ErrorBody:
		return x.errorMessage(there)
	}
	return nil, refuse(cmp.BadRequest, "RFC 9483 §3.5", "%s is not a message that a CA answers", x.op())
}

var errInUse = refuse(cmp.TransactionIDInUse, "RFC 9483 §3.5", "this transactionID is in use: begin with a fresh one")

// beginsTransaction reports whether a body must be the first of its transaction.
func beginsTransaction(b cmp.Body) bool {
	switch b.Type() {
	case cmp.IR, cmp.CR, cmp.P10CR, cmp.KUR, cmp.RR, cmp.GenM, cmp.Nested:
		return true
	}
	return false
}

// digest is what makes a repeated message the same.
func (x *exchange) digest() [32]byte { return sha256.Sum256(x.raw) }

// earlier is the transaction that the message belongs to; nil if there is none.
func (x *exchange) earlier(ctx context.Context) (*Transaction, error) {
	t, err := x.Ledger.Transaction(ctx, transactionID(x.in.Header.TransactionID))
	if errors.Is(err, ca.ErrNoRecord) {
		return nil, nil
	}
	return t, err
}

// Bounds of waiting for who works on the same message.
const (
	abandoned   = time.Minute // longer than any answer takes: who worked on it is gone
	lookAgain   = 100 * time.Millisecond
	waitForSame = 5 * time.Second
)

// again is the answer that the same message got before; nil if it is another, or
// if whoever was at it is gone.
func (x *exchange) again(ctx context.Context, t *Transaction) ([]byte, error) {
	digest := x.digest()
	switch {
	case t.ConfirmAnswer != nil && t.Confirm == digest:
		x.outcome = "again"
		return t.ConfirmAnswer, nil
	case t.Request != digest:
		return nil, nil
	}
	for waited := time.Duration(0); t.State == Working && x.now.Sub(t.Begun) < abandoned; waited += lookAgain {
		if waited >= waitForSame {
			return nil, refuse(cmp.SystemUnavail, "RFC 9483 §3.5", "this message is being worked on: send it again in a minute")
		}
		select {
		case <-ctx.Done():
			return nil, ca.Away("the client", context.Cause(ctx))
		case <-time.After(lookAgain):
		}
		var err error
		if t, err = x.Ledger.Transaction(ctx, t.ID); errors.Is(err, ca.ErrNoRecord) {
			return nil, refuse(cmp.SystemUnavail, "RFC 9483 §3.5", "the same message was refused on another connection")
		} else if err != nil {
			return nil, err
		}
	}
	if t.Answer != nil {
		x.outcome = "again"
	}
	return t.Answer, nil
}

// authenticate verifies the protection (RFC 9483 §3.5) and finds out whose it is.
// Within a transaction the credential must be that of its first message.
func (x *exchange) authenticate(ctx context.Context, there *Transaction) (err error) {
	x.mac = x.macPolicy(ctx)
	var usable error // of the credential: for whoever knows its secret
	options := cmp.VerifyOptions{
		Header: cmp.HeaderRules{}, // checked already
		MAC:    x.mac,
		Secret: func(reference []byte) ([]byte, error) {
			x.requester, x.secret, usable = x.Authority.CredentialSecret(ctx, string(reference))
			x.actor = "credential:" + string(reference)
			if x.secret == "" {
				return nil, usable
			}
			return []byte(x.secret), nil
		},
		Trust: func(signer *x509.Certificate, others []*x509.Certificate) error {
			requester, err := x.Authority.AuthenticateCertificate(ctx, append([]*x509.Certificate{signer}, others...))
			if err != nil {
				return &cmp.Error{Info: status(err, true).FailInfo, Section: "RFC 9483 §3.5", Reason: status(err, true).Text[0], Err: err}
			}
			x.requester, x.actor = requester, requester.Actor()
			return nil
		},
	}
	continues := there != nil && !beginsTransaction(x.in.Body)
	if continues && there.Signer != nil {
		if c, err := der.Certificate(there.Signer); err == nil {
			options.Known = append(options.Known, c)
		}
	} else if options.Known, err = x.registered(ctx); err != nil {
		return err
	}
	by, err := x.in.Verify(options)
	if err != nil {
		if x.actor != "" {
			x.macFailed = true
			err = x.wrongSecret(err)
		}
		x.requester, x.secret, x.actor = ca.Requester{}, "", ""
		return err
	}
	if !continues {
		x.by = by
		return usable
	}
	switch {
	case (by.MAC == nil) != (there.Signer != nil):
		return refuse(cmp.WrongIntegrity, "RFC 9483 §3.1", "the kind of protection changed within the transaction")
	case x.actor != there.Actor || by.Certificate != nil && string(by.Certificate.Raw) != string(there.Signer):
		return refuse(cmp.BadMessageCheck, "RFC 9483 §3.1", "the transaction was begun with another credential")
	}
	x.by = by
	switch x.in.Body.Type() {
	case cmp.PollReq, cmp.POPDecR: // may lead to a certificate
		return usable
	}
	return nil // what was issued may be confirmed though the credential has expired since
}

// recognize looks whether a message that is refused before it was authenticated, or cannot be because of its kind, is
// protected by a right MAC: then the refusal is protected by it, as the peer may have nothing else to verify it with
// (RFC 9483 §3.2). It costs what authenticating costs, within the same bounds.
func (x *exchange) recognize(ctx context.Context) {
	if x.by != nil || x.macFailed || x.in == nil || x.in.Protection == nil || !x.in.UsesMAC() {
		return
	}
	_, secret, _ := x.Authority.CredentialSecret(ctx, string(x.in.Reference()))
	if secret == "" {
		return
	}
	mac, err := x.in.VerifyMAC([]byte(secret), x.macPolicy(ctx))
	if err != nil {
		_ = x.wrongSecret(err)
		return
	}
	x.by = &cmp.Verified{MAC: mac}
}

// wrongSecret counts the guess where a MAC was made with another secret, and is what to answer.
func (x *exchange) wrongSecret(err error) error {
	if !wrongMAC(x.in, err) {
		return err
	}
	return x.Authority.WrongSecret(string(x.in.Reference()), remoteAddr(x.address))
}

// checkFresh: a message within a transaction has a senderNonce of its own, not that of the message before it
// (RFC 9483 §3.1), to which our answers give it back.
func (x *exchange) checkFresh(t *Transaction) error {
	for _, raw := range [][]byte{t.Answer, t.ConfirmAnswer} {
		if answer, err := limits.Parse(raw); err == nil && bytes.Equal(answer.Header.RecipNonce, x.in.Header.SenderNonce) {
			return refuse(cmp.BadSenderNonce, "RFC 9483 §3.1", "the senderNonce is that of an earlier message of the transaction: make a fresh one")
		}
	}
	return nil
}

// wrongMAC reports whether a message failed because its MAC was made with another
// secret: parameters that are not accepted, for one, are no guess.
func wrongMAC(m *cmp.Message, err error) bool {
	e, ok := errors.AsType[*cmp.Error](err)
	return ok && m.UsesMAC() && e.Info == cmp.BadMessageCheck
}

// remoteAddr is the peer's address; the zero one if there is none.
func remoteAddr(address string) netip.Addr {
	peer, _ := netip.ParseAddrPort(address)
	return peer.Addr()
}

// signed reports whether the message claims to be protected by a signature.
func (x *exchange) signed() bool { return x.in != nil && !x.in.UsesMAC() }

// reply makes the answer, unprotected.
func (x *exchange) reply(body cmp.Body) *cmp.Message {
	to := x.in
	if to == nil {
		to = &cmp.Message{}
	}
	return cmp.Reply(to, body, x.Now().UTC().Truncate(time.Second))
}

// protect protects in kind (RFC 9483 §3.2): by the secret whose knowledge was
// shown, else by the server's signature.
func (x *exchange) protect(m *cmp.Message) error { return m.Protect(x.protector()) }

func (x *exchange) protector() cmp.Protector {
	if x.by != nil && x.by.MAC != nil {
		return x.by.MAC
	}
	return x.delegate.current.Load()
}

// send makes a protected answer of a body.
func (x *exchange) send(body cmp.Body) ([]byte, error) {
	m := x.reply(body)
	if err := x.protect(m); err != nil {
		return nil, err
	}
	return m.Raw(), nil
}

// errorMessage answers an error of the client's (RFC 9483 §3.6.4): within a
// transaction it ends it, and what is not confirmed is revoked in time.
func (x *exchange) errorMessage(there *Transaction) ([]byte, error) {
	if there == nil {
		return nil, refuse(cmp.BadRequest, "RFC 9483 §3.6.4", "there is no such transaction")
	}
	return x.send(&cmp.Confirm{})
}
