package server

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"log/slog"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/policy"
)

// wanted is what a certificate request asks for, whichever body it came in.
type wanted struct {
	reqID      int64
	publicKey  crypto.PublicKey
	spki       []byte
	names      ca.Names
	notAfter   time.Time
	extensions []asn1.ObjectIdentifier // that were asked for, beside the names
	profile    string
	implicit   bool
}

// enroll answers ir, cr, p10cr and kur (RFC 9483 §4.1). What goes wrong from here
// on is a rejection in the answer that the body calls for, not an error message.
func (x *exchange) enroll(ctx context.Context) ([]byte, error) {
	w, err := x.read()
	if err == nil {
		var answer []byte
		if answer, err = x.issue(ctx, w); err == nil {
			return answer, nil
		}
	}
	return x.reject(ctx, w, err)
}

// reject answers a certificate request with the reason why not.
func (x *exchange) reject(ctx context.Context, w wanted, err error) ([]byte, error) {
	if e, ok := errors.AsType[*cmp.Error](err); ok && e.Info&(cmp.TransactionIDInUse|cmp.BadRequest) != 0 {
		return nil, err // about the message, not about the certificate
	}
	info := status(err, x.signed())
	x.outcome = info.FailInfo.String()
	answer, sendErr := x.send(&cmp.CertResponses{Of: x.asked.Body.Type().Reply(),
		Responses: []cmp.CertResponse{{CertReqID: w.reqID, Status: info}}})
	if sendErr != nil {
		return nil, errors.Join(err, sendErr)
	}
	x.logRefusal(ctx, err)
	return answer, nil
}

func (x *exchange) logRefusal(ctx context.Context, err error) {
	level := slog.LevelInfo
	if x.outcome == cmp.SystemFailure.String() {
		level = slog.LevelError
	}
	x.Logger.LogAttrs(ctx, level, "refused", slog.String("protocol", "cmp"), slog.String("operation", x.op()),
		slog.String("device", x.requester.Device), slog.String("outcome", x.outcome), slog.String("address", x.address),
		slog.String("error", printable(err.Error())))
}

// read takes the request apart and checks the proof of possession.
func (x *exchange) read() (w wanted, err error) {
	if b, ok := x.asked.Body.(*cmp.PKCS10); ok {
		w.reqID = -1 // RFC 9483 §4.1.4
		csr, err := ca.ParseCSR(b.Request)
		if err != nil {
			return w, err
		}
		w.publicKey, w.spki, w.names, w.extensions = csr.PublicKey, csr.SPKI, csr.Names, csr.Extensions
	} else if err := x.readCRMF(&w); err != nil {
		return w, err
	}
	if w.implicit, err = x.asked.Header.GeneralInfo.ImplicitConfirm(); err != nil {
		return w, err
	}
	w.profile, err = x.profileAsked()
	return w, err
}

// profileAsked is the profile that the header or the path names; "" if neither does.
func (x *exchange) profileAsked() (string, error) {
	names, _, err := x.asked.Header.GeneralInfo.CertProfile()
	switch {
	case err != nil:
		return "", err
	case len(names) > 1:
		return "", refuse(cmp.BadRequest, "RFC 9483 §3.1", "certProfile names %d profiles: name one", len(names))
	case len(names) == 0:
		return x.profile, nil
	case x.profile != "" && x.profile != names[0]:
		return "", refuse(cmp.BadRequest, "RFC 9483 §6.1", "certProfile and the path name different profiles")
	}
	return names[0], nil
}

// issue has the certificate issued, in steps whose order matters:
//
//  1. The transaction is durable before anything is issued, so that the same
//     message elsewhere, or after a crash, finds it.
//  2. The core issues. The certificate is durable when it returns.
//  3. The answer is durable before it is sent, so that a repeated request gets
//     these very octets.
func (x *exchange) issue(ctx context.Context, w wanted) ([]byte, error) {
	if err := x.mustConfirm(w); err != nil {
		return nil, err
	}
	t, resumed, answer, err := x.begin(ctx, w.reqID)
	if answer != nil || err != nil {
		return answer, err
	}
	return x.carryOut(ctx, w, t, resumed)
}

// carryOut is what is left of issue when the transaction is there.
func (x *exchange) carryOut(ctx context.Context, w wanted, t *Transaction, resumed bool) ([]byte, error) {
	issued, err := x.obtain(ctx, w, t, resumed)
	// From here on the client's leaving changes nothing.
	ctx = context.WithoutCancel(ctx)
	if err != nil && ca.KindOf(err) == ca.Pending {
		return x.postpone(ctx, t, ca.AsError(err))
	}
	if err != nil {
		return nil, errors.Join(err, x.Ledger.DropTransaction(ctx, t.ID))
	}
	m, err := x.certReply(w, issued)
	if err != nil {
		return nil, err
	}
	t.State, t.Serial, t.Expires, t.Message = Done, issued.Certificate.Serial, x.keepUntil(), nil
	if !w.implicit && !x.cannotRevoke(issued.Certificate.Profile) {
		t.State, t.Deadline = Waiting, x.now.Add(x.ConfirmWait)
		m.Header.GeneralInfo = m.Header.GeneralInfo.With(cmp.ConfirmWaitTime(t.Deadline))
	} else {
		m.Header.GeneralInfo = m.Header.GeneralInfo.With(cmp.ImplicitConfirm())
	}
	if err := x.finishWith(ctx, t, m); err != nil {
		return nil, err
	}
	x.outcome = string(issued.Outcome)
	c := issued.Certificate
	x.Logger.LogAttrs(ctx, slog.LevelInfo, "issued", slog.String("protocol", "cmp"), slog.String("device", c.Device),
		slog.String("serial", c.Serial.String()), slog.String("issuer", c.Issuer), slog.String("profile", c.Profile),
		slog.String("outcome", x.outcome), slog.Bool("again", issued.Again), slog.String("address", x.address))
	return m.Raw(), nil
}

// begin enters the transaction, or has the answer that another connection just
// gave to the same message.
func (x *exchange) begin(ctx context.Context, reqID int64) (t *Transaction, resumed bool, answer []byte, err error) {
	t = &Transaction{ID: transactionID(x.in.Header.TransactionID), Begun: x.now, Expires: x.keepUntil(), State: Working,
		Request: x.digest(), Actor: x.actor, ReqID: reqID}
	if x.by.Certificate != nil {
		t.Signer = x.by.Certificate.Raw
	}
	there, resumed, err := x.Ledger.BeginTransaction(ctx, t, x.now.Add(-abandoned))
	switch {
	case err != nil || there == nil:
		return t, false, nil, err
	case resumed:
		t.Begun = there.Begun
		return t, true, nil, nil
	}
	if answer, err = x.again(ctx, there); answer == nil && err == nil {
		err = errInUse
	}
	return nil, false, answer, err
}

// keepUntil is when a transaction may be forgotten: when its first message is too
// old to be accepted again, whichever way its clock was off.
func (x *exchange) keepUntil() time.Time { return x.now.Add(2*x.TimeWindow + abandoned) }

// finishWith protects the answer and stores it.
func (x *exchange) finishWith(ctx context.Context, t *Transaction, m *cmp.Message) error {
	if err := x.protect(m); err != nil {
		return err
	}
	t.Nonce = m.Header.SenderNonce
	if x.asked == x.in {
		t.Answer = m.Raw()
	} else {
		t.Confirm, t.ConfirmAnswer = x.digest(), m.Raw()
	}
	return x.Ledger.FinishTransaction(ctx, t)
}

// cannotRevoke reports whether certificates of a profile say that they are never
// revoked (RFC 9608): waiting for their confirmation would be in vain.
func (x *exchange) cannotRevoke(profile string) bool {
	p, err := x.Authority.ProfileFor(ca.Requester{}, profile)
	return err == nil && p.Status.NoRevAvail
}

// mustConfirm refuses to wait for the confirmation of what cannot be taken back.
func (x *exchange) mustConfirm(w wanted) error {
	profile := w.profile
	if old := x.requester.Certificate; profile == "" && old != nil {
		profile = old.Profile
	}
	p, err := x.Authority.ProfileFor(x.requester, profile)
	if err != nil || w.implicit || !p.Status.NoRevAvail {
		return nil // the core will say what is wrong with the profile
	}
	return refuse(cmp.BadRequest, "RFC 9608 §4", "certificates of profile %s cannot be revoked: ask for implicitConfirm", p.Name)
}

// obtain has the certificate issued, or finds the one that was issued before the
// server that worked on the request went away.
func (x *exchange) obtain(ctx context.Context, w wanted, t *Transaction, resumed bool) (*ca.Issued, error) {
	if resumed {
		if found, err := x.issuedBefore(ctx, w, t.Begun); found != nil || err != nil {
			return found, err
		}
	}
	return x.Authority.Enroll(ctx, ca.Request{
		Protocol:  "cmp",
		Requester: x.requester,
		Renew:     x.asked.Body.Type() == cmp.KUR,
		PublicKey: w.publicKey,
		SPKI:      w.spki,
		Names:     w.names,
		Profile:   w.profile,
		NotAfter:  w.notAfter,
		Address:   x.address,
		Approvers: x.approvers,
		Forwarded: x.original.device,
	})
}

// issuedBefore finds a certificate of this requester for this key since the
// transaction was begun.
func (x *exchange) issuedBefore(ctx context.Context, w wanted, begun time.Time) (*ca.Issued, error) {
	id := x.requester.Device
	if id == "" {
		id = w.names.CommonName()
	}
	key := sha256.Sum256(w.spki)
	for after := int64(0); ; {
		page, err := x.Ledger.Certificates(ctx, ca.CertificateFilter{Device: id, ExpiresAfter: x.now}, after, 500)
		if err != nil || len(page) == 0 {
			return nil, err
		}
		for _, c := range page {
			if after = c.ID; c.Protocol == "cmp" && c.KeyID == key && c.Actor == x.actor && c.Revocation == nil && !c.IssuedAt.Before(begun) {
				issued := &ca.Issued{Certificate: &c, Outcome: c.Decision.Outcome, Reasons: c.Decision.Reasons, Again: true}
				if issuer, ok := x.Authority.CACert(c.Issuer); ok {
					issued.Chain = [][]byte{issuer}
				}
				return issued, nil
			}
		}
	}
}

// certReply makes the answer that hands out a certificate (RFC 9483 §4.1.1): its
// chain in extraCerts, and to who showed a shared secret the roots in caPubs.
func (x *exchange) certReply(w wanted, issued *ca.Issued) (*cmp.Message, error) {
	info := cmp.StatusInfo{Status: cmp.Accepted}
	for _, reason := range issued.Reasons {
		if issued.Outcome != policy.Issue {
			info.Text = append(info.Text, printable(reason))
		}
	}
	differs, err := differs(w, issued.Certificate.DER)
	if err != nil {
		return nil, err
	}
	info.Text = append(info.Text, differs...)
	if issued.Outcome != policy.Issue {
		info.Text = append([]string{"outcome: " + printable(string(issued.Outcome))}, info.Text...)
	}
	if len(info.Text) > 0 {
		info.Status = cmp.GrantedWithMods
	}
	body := &cmp.CertResponses{Of: x.asked.Body.Type().Reply(), Responses: []cmp.CertResponse{{
		CertReqID: w.reqID, Status: info, KeyPair: &cmp.KeyPair{Certificate: issued.Certificate.DER}}}}
	if x.by.MAC != nil && x.asked.Body.Type() == cmp.IR {
		for _, record := range x.Authority.Issuers() {
			if record.Role == "root" && record.Revoked == nil {
				body.CAPubs = append(body.CAPubs, record.Cert)
			}
		}
	}
	m := x.reply(body)
	m.ExtraCerts = issued.Chain
	return m, nil
}

// differs says how the certificate is not what was asked for: an extension that is
// not there, or an earlier end.
func differs(w wanted, der []byte) (text []string, err error) {
	if len(w.extensions) == 0 && w.notAfter.IsZero() {
		return nil, nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	for _, asked := range w.extensions {
		found := false
		for _, e := range cert.Extensions {
			found = found || e.Id.Equal(asked)
		}
		if !found {
			text = append(text, "the profile gives no extension "+asked.String())
		}
	}
	if !w.notAfter.IsZero() && cert.NotAfter.Before(w.notAfter.Truncate(time.Second)) {
		text = append(text, "the profile ends at "+cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return text, nil
}
