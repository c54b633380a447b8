package cmp

import (
	"bytes"
	"crypto"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deviceca/deviceca/internal/der"
)

// HeaderRules say what a header must be (RFC 9483 §3.1, §3.5). The zero value
// checks what holds for every message.
type HeaderRules struct {
	// First: this message starts a transaction, so recipNonce must be absent.
	First bool
	// TransactionID must be equal, and RecipNonce one of these, for a message
	// within a transaction. Nil leaves them unchecked.
	TransactionID []byte
	RecipNonces   [][]byte
	// Now and TimeWindow bound how far messageTime may be off, either way. With a
	// TimeWindow of 0 it is not looked at. RequireTime refuses messages without.
	Now         func() time.Time // default time.Now
	TimeWindow  time.Duration
	RequireTime bool
}

// minNonce is 128 bits.
const minNonce = 16

// Check applies the rules. Each error is an [Error] with the bit that RFC 9483
// §3.5 gives for it.
func (h *Header) Check(rules HeaderRules) error {
	switch {
	case h.Version != CMP2000 && h.Version != CMP2021:
		return refuse(UnsupportedVersion, "RFC 9810 §7", "pvno %d is not 2 or 3", h.Version)
	case len(h.TransactionID) == 0:
		return refuse(BadDataFormat, generic, "there is no transactionID")
	case len(h.TransactionID) > maxID:
		return refuse(BadDataFormat, generic, "the transactionID is longer than %d octets", maxID)
	case len(h.SenderNonce) < minNonce:
		return refuse(BadSenderNonce, generic, "the senderNonce has fewer than 128 bits")
	case len(h.SenderNonce) > maxID:
		return refuse(BadSenderNonce, generic, "the senderNonce is longer than %d octets", maxID)
	case rules.First && h.RecipNonce != nil:
		return refuse(BadRecipientNonce, "RFC 9483 §3.1", "the first message of a transaction has a recipNonce")
	case rules.TransactionID != nil && !bytes.Equal(rules.TransactionID, h.TransactionID):
		return refuse(BadRequest, "RFC 9483 §3.1", "the transactionID is that of another transaction")
	case rules.RecipNonces != nil && !slices.ContainsFunc(rules.RecipNonces, func(n []byte) bool {
		return subtle.ConstantTimeCompare(n, h.RecipNonce) == 1
	}):
		return refuse(BadRecipientNonce, generic, "the recipNonce is not the senderNonce of the message before")
	}
	return h.checkTime(rules)
}

// maxID bounds what a server has to store for a transaction.
const maxID = 64

func (h *Header) checkTime(rules HeaderRules) error {
	if h.Time.IsZero() {
		if rules.RequireTime {
			return refuse(BadTime, generic, "there is no messageTime")
		}
		return nil
	}
	if rules.TimeWindow <= 0 {
		return nil
	}
	now := time.Now
	if rules.Now != nil {
		now = rules.Now
	}
	if off := now().Sub(h.Time).Abs(); off > rules.TimeWindow {
		return refuse(BadTime, generic, "messageTime is off by %s, more than %s", off.Round(time.Second), rules.TimeWindow)
	}
	return nil
}

// VerifyOptions say how a message must be protected. What is nil is not accepted:
// the zero value refuses every message.
type VerifyOptions struct {
	Header HeaderRules

	// Secret returns the secret that a reference names: the senderKID, or without
	// one the commonName of the sender. For an unknown reference it should return
	// a random secret, so that the answer is the same as for a wrong one.
	Secret func(reference []byte) ([]byte, error)
	MAC    MACPolicy

	// Trust decides whether the certificate that has signed may speak: path
	// validation, status, authorisation. others are the rest of extraCerts, of
	// unknown worth. See TrustRoots. An [Error] is passed on, others become
	// signerNotTrusted.
	Trust func(signer *x509.Certificate, others []*x509.Certificate) error
	// Known are protection certificates that may be left out of extraCerts, such
	// as that of the first message of the transaction.
	Known []*x509.Certificate
	// AnyOrder finds the protection certificate anywhere in extraCerts, as RFC
	// 9483 §3.3 suggests to receivers; else it must come first, as the same
	// section demands of senders.
	AnyOrder bool
}

// Verified says by what a message was protected: one field is set.
type Verified struct {
	MAC         *MAC
	Certificate *x509.Certificate
}

// maxCandidates bounds certificates parsed out of extraCerts of one message.
const maxCandidates = 32

// Verify applies the generic validation of RFC 9483 §3.5, in its order:
//
//  1. The header: version, transactionID, nonces, time.
//  2. There is a protection (else badMessageCheck).
//  3. MAC or signature, as the options and the body allow (else wrongIntegrity):
//     kur, rr and nested are signed (RFC 9483 §4.1.3, §4.2, §5.2.2).
//  4. The MAC or the signature verifies, over the octets received (else
//     badMessageCheck), and the sender is the one that the certificate names.
//  5. The signer is trusted (else signerNotTrusted).
//
// Every error is an [Error], but for those of Secret and of MAC.Begin.
func (m *Message) Verify(o VerifyOptions) (*Verified, error) {
	if err := m.Header.Check(o.Header); err != nil {
		return nil, err
	}
	if m.Protection == nil || !m.Header.ProtectionAlg.Present() {
		return nil, errUnprotected
	}
	if m.UsesMAC() {
		return m.verifyShared(o)
	}
	if o.Trust == nil {
		return nil, refuse(WrongIntegrity, generic, "signature-based protection is not accepted here")
	}
	return m.verifySigned(o)
}

func (m *Message) verifyShared(o VerifyOptions) (*Verified, error) {
	switch t := m.Body.Type(); t {
	case KUR, RR, Nested, CCR:
		return nil, refuse(WrongIntegrity, generic, "%s needs signature-based protection", t)
	}
	if o.Secret == nil {
		return nil, refuse(WrongIntegrity, generic, "MAC-based protection is not accepted here")
	}
	secret, err := o.Secret(m.Reference())
	if err != nil {
		return nil, err
	}
	k, err := m.VerifyMAC(secret, o.MAC)
	if err != nil {
		return nil, err
	}
	return &Verified{MAC: k}, nil
}

// Reference returns what names the shared secret of a message protected by a MAC:
// the senderKID, or without one the commonName of the sender (RFC 9483 §4.1.5).
func (m *Message) Reference() []byte {
	if m.Header.SenderKID != nil {
		return m.Header.SenderKID
	}
	return []byte(m.Header.Sender.CommonName())
}

func (m *Message) verifySigned(o VerifyOptions) (*Verified, error) {
	// An unsupported algorithm is worth saying, whoever has signed.
	if _, err := signatureOf(m.Header.ProtectionAlg); err != nil {
		return nil, err
	}
	var sent []*x509.Certificate
	var unread error // why the first, the signer's own, is not used
	for i, raw := range m.ExtraCerts[:min(len(m.ExtraCerts), maxCandidates)] {
		// A certificate that cannot be read may belong to a chain of others. One
		// with a monstrous key must not get into path validation.
		c, err := der.Certificate(raw)
		switch {
		case err == nil && !tooLarge(c.PublicKey):
			sent = append(sent, c)
		case err != nil && i == 0:
			unread = err
		}
	}
	candidates := slices.Clone(o.Known)
	switch {
	case o.AnyOrder:
		candidates = append(candidates, sent...)
	case len(sent) > 0 && bytes.Equal(sent[0].Raw, m.ExtraCerts[0]):
		candidates = append(candidates, sent[0])
	}
	var failed error
	for _, c := range candidates {
		err := m.VerifyCertificate(c)
		if err != nil {
			// Of several reasons the last stays: that of the certificate sent.
			failed = err
			continue
		}
		others := slices.DeleteFunc(slices.Clone(sent), c.Equal)
		if err := o.Trust(c, others); err != nil {
			if e, ok := errors.AsType[*Error](err); ok {
				return nil, e
			}
			return nil, &Error{Info: SignerNotTrusted, Section: generic, Reason: "the signer is not trusted", Err: err}
		}
		return &Verified{Certificate: c}, nil
	}
	if failed == nil && unread != nil {
		failed = &Error{Info: BadMessageCheck, Section: "RFC 9483 §3.3", Reason: "the first of extraCerts, which should be the protection certificate, cannot be read", Err: unread}
	}
	if failed == nil {
		failed = refuse(BadMessageCheck, "RFC 9483 §3.3", "the protection certificate is neither known nor the first of extraCerts")
	}
	return nil, failed
}

// VerifyCertificate checks that m was signed with the key of cert, and that it
// says so: sender and senderKID agree with the certificate, which may sign
// (RFC 9483 §3.5). Whether cert is worth anything is not looked at. Errors carry
// badMessageCheck or badAlg.
func (m *Message) VerifyCertificate(cert *x509.Certificate) error {
	dn, ok := m.Header.Sender.Directory()
	switch {
	case !ok || !SameName(dn, cert.RawSubject):
		return refuse(BadMessageCheck, generic, "the sender is not the subject of the protection certificate")
	case m.Header.SenderKID != nil && len(cert.SubjectKeyId) > 0 && !bytes.Equal(m.Header.SenderKID, cert.SubjectKeyId):
		return refuse(BadMessageCheck, generic, "the senderKID is not the key identifier of the protection certificate")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return refuse(BadMessageCheck, generic, "the key usage of the protection certificate lacks digitalSignature")
	}
	return m.VerifyKey(cert.PublicKey)
}

// VerifyKey checks the signature of m with a key that is trusted by other means,
// and nothing else. Errors carry badMessageCheck, badAlg or wrongIntegrity (a MAC).
func (m *Message) VerifyKey(pub crypto.PublicKey) error {
	if m.Protection == nil || !m.Header.ProtectionAlg.Present() {
		return errUnprotected
	}
	if m.UsesMAC() {
		return refuse(WrongIntegrity, generic, "the message is not protected by a signature")
	}
	sig, err := signatureOf(m.Header.ProtectionAlg)
	if err != nil {
		return err
	}
	part, err := m.protectedPart()
	if err != nil {
		return err
	}
	if err := sig.verify(pub, part, m.Protection); errors.Is(err, errSignature) {
		return refuse(BadMessageCheck, generic, "the signature does not verify")
	} else if err != nil {
		return err
	}
	return nil
}

// TrustRoots returns a Trust function that validates the path of the signer to
// one of roots by RFC 5280, at the time now gives, with extraCerts as
// intermediates. usages, if any, are extended key usages of which one must hold
// for the whole path; none accepts any. Keys are RSA of 2048 to 8192 bits, ECDSA or Ed25519. It
// does not look at revocation.
func TrustRoots(roots *x509.CertPool, now func() time.Time, usages ...x509.ExtKeyUsage) func(*x509.Certificate, []*x509.Certificate) error {
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	return func(signer *x509.Certificate, others []*x509.Certificate) error {
		pool := x509.NewCertPool()
		for _, c := range others {
			pool.AddCert(c)
		}
		paths, err := signer.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, CurrentTime: now(), KeyUsages: usages})
		if err != nil {
			return err
		}
		for _, p := range paths {
			if err = strong(p); err == nil {
				return nil
			}
		}
		return err
	}
}

// strong refuses keys on a path whose signatures prove nothing; crypto/x509 refuses MD5 and SHA-1 by itself.
func strong(path []*x509.Certificate) error {
	for _, c := range path {
		if err := der.AcceptKey(c.PublicKey); err != nil {
			return fmt.Errorf("%s: %w", c.Subject, err)
		}
	}
	return nil
}
