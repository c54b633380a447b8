package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"slices"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// askProof reads how possession of a key that does not sign is to be proven: by a
// certificate that comes encrypted, or by a challenge (RFC 9810 §5.2.8.3, RFC 4211
// §4.2, §4.3). Who can sign must sign (RFC 9810 §5.2.8.4).
func (x *exchange) askProof(w *wanted, pop *cmp.POP) error {
	bad := func(format string, args ...any) error { return refuse(cmp.BadPOP, "RFC 9810 §5.2.8", format, args...) }
	if pop.Key.Method != cmp.SubsequentMessage {
		return bad("%s is not taken: ask for subsequentMessage, encrCert or challengeResp", pop.Key.Method)
	}
	if err := x.wantsVersion3("RFC 9810 §5.2.8.3", "what proves possession comes in EnvelopedData"); err != nil {
		return err
	}
	profile, err := x.profileWanted()
	if err != nil {
		return err
	}
	method, usage := cmp.KeyAgreement, "keyAgreement"
	switch w.publicKey.(type) {
	case *rsa.PublicKey:
		method, usage = cmp.KeyEncipherment, "keyEncipherment"
	case *ecdsa.PublicKey:
	default:
		return bad("this key signs: prove possession by a signature")
	}
	switch {
	case slices.Contains(profile.KeyUsage, "digitalSignature"):
		return bad("profile %s is for keys that sign: prove possession by a signature", profile.Name)
	case !slices.Contains(profile.KeyUsage, usage):
		return bad("profile %s has no %s, and the key would be of no use", profile.Name, usage)
	case pop.Method != method:
		return bad("for this key the proof of possession is %s", method)
	}
	// A key that cannot be encrypted to is refused now rather than when it is too late.
	if _, err := cmp.ToKey(w.publicKey, w.reqID); err != nil {
		return err
	}
	switch pop.Key.Subsequent {
	case cmp.EncrCert:
		if profile.Status.NoRevAvail {
			return bad("certificates of profile %s cannot be taken back when possession is not proven: ask for challengeResp", profile.Name)
		}
		w.encrypted, w.possession = true, ca.Later
	case cmp.ChallengeResp:
		w.challenged = true
	default:
		return bad("subsequentMessage %d is none", pop.Key.Subsequent)
	}
	return nil
}

// mustProve is askProof once more, for the certificate that is about to be issued: a
// rule may have put another profile in the place of the one that was asked for.
func (x *exchange) mustProve(w wanted, c *ca.Certificate) error {
	if w.encrypted && x.cannotRevoke(c.Profile) {
		return ca.Errorf(ca.BadPOP, "certificates of profile %s cannot be taken back when possession is not proven: ask for challengeResp", c.Profile)
	}
	return nil
}

// challenge answers with popdecc (RFC 9810 §5.2.8.3.3). Nothing is decided yet and
// nothing issued: the request is kept until the popdecr.
func (x *exchange) challenge(ctx context.Context, w wanted) ([]byte, error) {
	to, err := cmp.ToKey(w.publicKey, w.reqID)
	if err != nil {
		return nil, err
	}
	c, err := cmp.NewChallenge(x.protector().Sender(), to)
	if err != nil {
		return nil, err
	}
	if err := x.spend(x.requester.Device); err != nil {
		return nil, err
	}
	t := x.newTransaction(w.reqID)
	t.State = Challenged
	if err := x.remember(t); err != nil {
		return nil, err
	}
	m := x.reply(&cmp.Challenges{List: []cmp.Challenge{c}})
	return x.keep(ctx, t, m, string(Challenged))
}

// proven answers popdecr: with the right number the request goes on as any other.
// There is one try.
func (x *exchange) proven(ctx context.Context, t *Transaction, b *cmp.ChallengeAnswers) ([]byte, error) {
	if t == nil || t.State != Challenged {
		return nil, refuse(cmp.BadRequest, "RFC 9810 §5.2.8.3.3", "no challenge is waiting for its answer in this transaction")
	}
	if err := x.in.Header.Check(cmp.HeaderRules{RecipNonces: [][]byte{t.Nonce}}); err != nil {
		return nil, err
	}
	if len(b.List) != 1 {
		return nil, refuse(cmp.BadRequest, "RFC 9810 §5.2.8.3.3", "%d answers to one challenge", len(b.List))
	}
	if !x.now.Before(t.Expires) {
		return nil, refuse(cmp.BadTime, "RFC 9810 §5.2.8.3.3", "the answer to the challenge came too late: begin anew")
	}
	sent, err := limits.Parse(t.Answer)
	if err != nil {
		return nil, err
	}
	var wrong error
	if challenge := sent.Body.(*cmp.Challenges).List[0]; !challenge.Answered(b.List[0]) {
		wrong = errors.Join(refuse(cmp.BadPOP, "RFC 9810 §5.2.8.3.3", "the number is not the one that was encrypted to the key"),
			x.Ledger.DropTransaction(ctx, t.ID))
	}
	return x.goOn(ctx, t, wrong)
}

// wrongHash is what certConf is told whose certHash is not the certificate's. Where
// that came encrypted, the hash is the proof of possession (RFC 9810 §5.2.8.3.2).
func wrongHash(t *Transaction, err error) error {
	for _, raw := range [][]byte{t.ConfirmAnswer, t.Answer} {
		m, parseErr := limits.Parse(raw)
		if parseErr != nil {
			continue
		}
		if b, ok := m.Body.(*cmp.CertResponses); ok && len(b.Responses) == 1 && b.Responses[0].KeyPair != nil && b.Responses[0].KeyPair.EncryptedCert != nil {
			return &cmp.Error{Info: cmp.BadPOP, Section: "RFC 9810 §5.2.8.3.2", Reason: "certHash is not that of the certificate that was encrypted to the key", Err: err}
		}
	}
	return err
}
