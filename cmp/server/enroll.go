package server

import (
	"context"
	"crypto"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"slices"
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
	issuer     []byte // asked for, Name in DER; nil if none was
	subject    []byte // that of the IDevID, if that is what was asked for; names has none then
	notBefore  time.Time
	notAfter   time.Time
	extensions []pkix.Extension // that were asked for, beside the names
	profile    string
	implicit   bool

	// A key to be made here (RFC 9483 §4.1.6): of which kind rather, and of which at all.
	make      bool
	kind      string
	kinds     []string
	sealedKey []byte // EnvelopedData, when it is made

	// Possession of a key that does not sign is proven by the certificate that comes
	// encrypted, or by the answer to a challenge.
	encrypted, challenged bool
	possession            ca.Possession
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
		info, err := b.Info()
		if err != nil {
			return w, err
		}
		if info.Version != 0 {
			return w, refuse(cmp.BadDataFormat, "RFC 9483 §4.1.4", "the PKCS#10 request has version %d, and there is 0 alone", info.Version)
		}
		w.publicKey, w.spki, w.names = csr.PublicKey, csr.SPKI, csr.Names
		if err := w.checkExtensions(info.Extensions); err != nil {
			return w, err
		}
	} else if err := x.readCRMF(&w); err != nil {
		return w, err
	}
	implicit, err := x.asked.Header.GeneralInfo.ImplicitConfirm()
	if err != nil {
		return w, err
	}
	w.implicit = implicit && !w.encrypted // there the confirmation is the proof
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

// issue has the certificate issued, as the first step of a transaction.
func (x *exchange) issue(ctx context.Context, w wanted) ([]byte, error) {
	if err := x.mustConfirm(w); err != nil {
		return nil, err
	}
	if w.challenged {
		if err := x.mayEnrol(ctx, w); err != nil {
			return nil, err
		}
		return x.challenge(ctx, w)
	}
	return x.carryOut(ctx, w, x.newTransaction(w.reqID))
}

// carryOut has the certificate issued. The answer is made before the certificate
// is recorded, and recorded with it, in one transaction of the ledger: whoever sends the
// same message again, to whichever server, finds both or neither. Of two servers that
// answer the same message one records; what the other has signed goes nowhere.
func (x *exchange) carryOut(ctx context.Context, w wanted, t *Transaction) ([]byte, error) {
	if w.make {
		if err := x.mayEnrol(ctx, w); err != nil {
			return nil, err
		}
		if err := x.makeKey(ctx, &w, t); err != nil {
			return nil, err
		}
	}
	was := *t
	var answer []byte
	request := x.request(w)
	request.With = func(issued *ca.Issued) (record any, err error) {
		*t = was
		answer, err = x.handOut(w, t, issued)
		return t, err
	}
	issued, err := x.Authority.Enroll(ctx, request)
	if err == nil && issued.Again { // recorded before, for another message
		*t = was
		if err = x.spend(issued.Certificate.Device); err == nil {
			answer, err = x.handOutAgain(ctx, w, t, issued)
		}
		if err == nil {
			err = x.Ledger.KeepTransaction(ctx, t)
		}
	}
	switch {
	case errors.Is(err, ca.ErrAnswered):
		return x.answered(ctx)
	case err != nil && ca.KindOf(err) == ca.Pending:
		*t = was
		return x.postpone(ctx, t, ca.AsError(err))
	case err != nil && was.Was != "" && ca.KindOf(err) != ca.Unavailable:
		return nil, errors.Join(err, x.Ledger.DropTransaction(ctx, t.ID))
	case err != nil:
		return nil, err
	}
	x.outcome = string(issued.Outcome)
	c := issued.Certificate
	x.Logger.LogAttrs(ctx, slog.LevelInfo, "issued", slog.String("protocol", "cmp"), slog.String("device", c.Device),
		slog.String("serial", c.Serial.String()), slog.String("issuer", c.Issuer), slog.String("profile", c.Profile),
		slog.String("outcome", x.outcome), slog.Bool("again", issued.Again), slog.String("address", x.address))
	return answer, nil
}

// request is what the core is asked for.
func (x *exchange) request(w wanted) ca.Request {
	return ca.Request{
		Protocol:   "cmp",
		Requester:  x.requester,
		Renew:      x.asked.Body.Type() == cmp.KUR,
		PublicKey:  w.publicKey,
		SPKI:       w.spki,
		Names:      w.names,
		Profile:    w.profile,
		NotBefore:  x.beginning(w),
		NotAfter:   w.notAfter,
		Address:    x.address,
		ServerKey:  w.make,
		Approvers:  x.approvers,
		Forwarded:  x.original.device,
		Possession: w.possession,
	}
}

// beginning is the start asked for, if the profile may begin there: from its backdating on. Else it
// is the profile's, and the answer says so.
func (x *exchange) beginning(w wanted) time.Time {
	p, err := x.profileFor()
	if err != nil || w.notBefore.After(x.now) || w.notBefore.Before(x.now.Add(-p.Backdate)) {
		return time.Time{}
	}
	return w.notBefore
}

// mayEnrol asks before a key or a challenge is made what the core asks again when it issues.
func (x *exchange) mayEnrol(ctx context.Context, w wanted) error {
	r := x.request(w)
	deed, err := r.Deed()
	if err != nil {
		return err
	}
	return x.Authority.MayActFor(ctx, x.requester, deed)
}

// handOut makes the answer with the certificate, and takes the transaction to
// where it is then.
func (x *exchange) handOut(w wanted, t *Transaction, issued *ca.Issued) ([]byte, error) {
	if err := x.mustProve(w, issued.Certificate); err != nil {
		return nil, err
	}
	m, err := x.certReply(w, issued)
	if err != nil {
		return nil, err
	}
	t.State = Done
	if !w.implicit && !x.cannotRevoke(issued.Certificate.Profile) {
		t.State, t.Deadline = Waiting, x.now.Add(x.ConfirmWait)
		m.Header.GeneralInfo = m.Header.GeneralInfo.With(cmp.ConfirmWaitTime(t.Deadline))
	} else {
		m.Header.GeneralInfo = m.Header.GeneralInfo.With(cmp.ImplicitConfirm())
	}
	return x.handsOut(t, m, issued.Certificate)
}

// handsOut finishes the answer that hands out a certificate.
func (x *exchange) handsOut(t *Transaction, m *cmp.Message, c *ca.Certificate) ([]byte, error) {
	t.Serial, t.Expires = c.Serial, x.keepUntil()
	t.Message, t.MadeKey, t.SealedKey = nil, nil, nil
	if err := x.protectIn(t, m); err != nil {
		return nil, err
	}
	return m.Raw(), nil
}

// handOutAgain answers with a certificate that was issued before: to a request whose answer was lost, over
// another protocol, or to another holder of a group's secret who replays the request (its
// proof of possession covers the CertReqMsg, not the transaction: RFC 4211 §4.1).
//
// That a certificate is confirmed is the duty of the transaction that issued it. This one can
// discharge it by certConf, and takes on none: if it does not confirm, or rejects, nothing is revoked on
// its account (RFC 9483 §4.1.1 leaves that to the CA's policy). While the first
// transaction still waits, implicitConfirm is not granted and confirmWaitTime is the first one's.
func (x *exchange) handOutAgain(ctx context.Context, w wanted, t *Transaction, issued *ca.Issued) ([]byte, error) {
	m, err := x.certReply(w, issued)
	if err != nil {
		return nil, err
	}
	t.State = Repeated
	switch first, err := x.Ledger.WaitingTransaction(ctx, issued.Certificate.Serial); {
	case err == nil:
		m.Header.GeneralInfo = m.Header.GeneralInfo.With(cmp.ConfirmWaitTime(first.Deadline))
	case !errors.Is(err, ca.ErrNoRecord):
		return nil, err
	case w.implicit:
		t.State = Done
		m.Header.GeneralInfo = m.Header.GeneralInfo.With(cmp.ImplicitConfirm())
	}
	return x.handsOut(t, m, issued.Certificate)
}

// keep protects an answer that hands nothing out, and stores it with its transaction.
func (x *exchange) keep(ctx context.Context, t *Transaction, m *cmp.Message, outcome string) ([]byte, error) {
	if err := x.protectIn(t, m); err != nil {
		return nil, err
	}
	if err := x.Ledger.KeepTransaction(ctx, t); errors.Is(err, ca.ErrAnswered) {
		return x.answered(ctx)
	} else if err != nil {
		return nil, err
	}
	x.outcome = outcome
	return m.Raw(), nil
}

// answered is the answer to the same message that was quicker on another connection.
func (x *exchange) answered(ctx context.Context) ([]byte, error) {
	t, err := x.Ledger.Transaction(ctx, transactionID(x.in.Header.TransactionID))
	if err != nil {
		return nil, err
	}
	answer, err := x.again(ctx, t)
	switch {
	case answer != nil || err != nil:
		return answer, err
	case x.in != x.asked:
		return nil, refuse(cmp.BadRequest, "RFC 9483 §3.5", "the transaction was continued on another connection")
	}
	return nil, errInUse
}

// newTransaction is one that the message begins.
func (x *exchange) newTransaction(reqID int64) *Transaction {
	t := &Transaction{ID: transactionID(x.in.Header.TransactionID), Begun: x.now, Expires: x.keepUntil(), State: Working,
		Request: x.digest(), Actor: x.actor, ReqID: reqID, Share: shareOfMany, Seen: x.seen}
	if x.requester.Device != "" && x.requester.Manufacturer == nil { // whose actor stands for all its devices
		t.Share = shareOfOne
	}
	if x.by.Certificate != nil {
		t.Signer = x.by.Certificate.Raw
	}
	return t
}

// keepUntil is when a transaction may be forgotten: when its first message is too
// old to be accepted again, whichever way its clock was off.
func (x *exchange) keepUntil() time.Time { return x.now.Add(2*x.TimeWindow + abandoned) }

// protectIn protects the answer and puts it into the transaction.
func (x *exchange) protectIn(t *Transaction, m *cmp.Message) error {
	if err := x.protect(m); err != nil {
		return err
	}
	t.Nonce = m.Header.SenderNonce
	if x.asked == x.in {
		t.Answer = m.Raw()
	} else {
		t.Confirm, t.ConfirmAnswer = x.digest(), m.Raw()
	}
	return nil
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

// newToUs reports whether the requester has just come to this PKI (RFC 9483 §4.1.1), and may not have its root yet: it
// sends ir with a shared secret, or with its manufacturer's certificate. In the latter case nothing but what
// the device knows by itself says that the root is to be trusted (RFC 9483 §3.3, RFC 9810 §5.3.2).
func (x *exchange) newToUs() bool {
	return x.asked.Body.Type() == cmp.IR && (x.by.MAC != nil || x.requester.Manufacturer != nil)
}

// certReply makes the answer that hands out a certificate (RFC 9483 §4.1.1): its
// chain in extraCerts, and for who is new here the roots in caPubs.
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
	if other := w.otherKind(); other != "" {
		info.Text = append(info.Text, other)
	}
	if issued.Outcome != policy.Issue {
		info.Text = append([]string{"outcome: " + printable(string(issued.Outcome))}, info.Text...)
	}
	if len(info.Text) > 0 {
		info.Status = cmp.GrantedWithMods
	}
	pair := &cmp.KeyPair{Certificate: issued.Certificate.DER}
	if w.encrypted {
		pair.Certificate = nil
		if pair.EncryptedCert, err = cmp.SealCertificate(issued.Certificate.DER); err != nil {
			return nil, &ca.Error{Kind: ca.BadPOP, Reason: "the certificate cannot be encrypted to its key: prove possession by a signature", Err: err}
		}
	}
	if w.make {
		pair.PrivateKey = &cmp.EncryptedKey{EnvelopedData: w.sealedKey}
	}
	body := &cmp.CertResponses{Of: x.asked.Body.Type().Reply(), Responses: []cmp.CertResponse{{CertReqID: w.reqID, Status: info, KeyPair: pair}}}
	m := x.reply(body)
	m.ExtraCerts = issued.Chain
	if x.newToUs() {
		body.CAPubs = rootsFor(issued.Certificate.Issuer, x.Authority.Issuers())
	}
	if x.by.MAC == nil { // after the chain, for clients that take the root from there (RFC 9483 §3.3)
		m.ExtraCerts = append(slices.Clone(m.ExtraCerts), body.CAPubs...)
	}
	return m, nil
}

// rootsFor are the roots that the holder of a CA's certificate needs: a device in quarantine
// also needs that of quarantine, to verify its own chain.
func rootsFor(issuer string, records []ca.IssuerRecord) (certs [][]byte) {
	quarantined := slices.ContainsFunc(records, func(r ca.IssuerRecord) bool { return r.Name == issuer && r.Role == "quarantine" })
	for _, r := range records {
		if r.Revoked == nil && (r.Role == "root" || r.Role == "quarantine-root" && quarantined) {
			certs = append(certs, r.Cert)
		}
	}
	return certs
}
