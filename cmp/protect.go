package cmp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"slices"
)

// Protector adds protection to messages: a *[MAC] or a *[Signer].
type Protector interface {
	// Sender is the sender that a message gets, unless it has one and the protection is a MAC.
	Sender() GeneralName
	protect(*Message) error
}

// Protect sets the header fields that go with the protection (protectionAlg,
// sender, senderKID: RFC 9483 §3.1) and protects header and body. Later changes to
// them need Protect again. Raw and Marshal then give the message to send.
func (m *Message) Protect(p Protector) error { return p.protect(m) }

// Signer protects messages by signature. It may be used by several goroutines at
// once if the key may.
type Signer struct {
	key   crypto.Signer
	cert  *x509.Certificate
	chain [][]byte
	sig   signature
	alg   Algorithm
}

// SignerOptions change how a Signer works. The zero value is usable.
type SignerOptions struct {
	// Chain follows the protection certificate in extraCerts, each certifying the
	// one before. Self-signed ones are left out (RFC 9483 §3.3).
	Chain []*x509.Certificate
	// PSS makes RSA keys sign by RSASSA-PSS instead of PKCS #1 v1.5.
	PSS bool
	// WithoutCerts adds nothing to extraCerts, for certConf, pkiConf, pollReq and
	// pollRep where size matters (RFC 9483 §3.3).
	WithoutCerts bool
}

// NewSigner protects with a key and the CMP protection certificate for it.
func NewSigner(key crypto.Signer, cert *x509.Certificate, o SignerOptions) (*Signer, error) {
	type equaler interface{ Equal(crypto.PublicKey) bool }
	if pub, ok := key.Public().(equaler); !ok || !pub.Equal(cert.PublicKey) {
		return nil, errors.New("the CMP protection certificate is not for this key")
	}
	sig, alg, err := signatureFor(cert.PublicKey, o.PSS)
	if err != nil {
		return nil, err
	}
	s := &Signer{key: key, cert: cert, sig: sig, alg: alg}
	if !o.WithoutCerts {
		s.chain = append(s.chain, cert.Raw)
		for _, c := range o.Chain {
			if !bytes.Equal(c.RawSubject, c.RawIssuer) {
				s.chain = append(s.chain, c.Raw)
			}
		}
	}
	return s, nil
}

// Certificate returns the CMP protection certificate.
func (s *Signer) Certificate() *x509.Certificate { return s.cert }

// Sender implements Protector.
func (s *Signer) Sender() GeneralName { return DirectoryName(s.cert.RawSubject) }

// protect implements Protector. The certificate and its chain come first in
// extraCerts, then what was there (RFC 9483 §3.3).
func (s *Signer) protect(m *Message) error {
	m.Header.ProtectionAlg = s.alg
	m.Header.Sender = s.Sender()
	m.Header.SenderKID = nil
	if len(s.cert.SubjectKeyId) > 0 {
		m.Header.SenderKID = s.cert.SubjectKeyId
	}
	certs := slices.Clone(s.chain)
	for _, c := range m.ExtraCerts {
		if !slices.ContainsFunc(certs, func(have []byte) bool { return bytes.Equal(have, c) }) {
			certs = append(certs, c)
		}
	}
	m.ExtraCerts, m.emptyExtraCerts = certs, false
	return m.seal(func(part []byte) ([]byte, error) { return s.sig.sign(s.key, part) })
}
