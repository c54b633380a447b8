package pack

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
)

var signingEKU = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 1, 2}

// SigningEKU returns 1.3.6.1.4.1.55555.1.2, the extended key usage of a certificate to which an issuing CA delegates the
// signing of its packs. It must be the only one there.
func SigningEKU() asn1.ObjectIdentifier { return slices.Clone(signingEKU) }

// maxCertificate bounds the delegated certificate in a header, in octets.
const maxCertificate = 8 << 10

// keyID is the COSE kid of a key: the first 8 octets of SHA-256 over its SubjectPublicKeyInfo.
func keyID(cert *x509.Certificate) []byte {
	h := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return h[:8]
}

// algorithm is a COSE algorithm that packs are signed with (RFC 9053 §2, RFC 8230 §2). Which one follows from the key.
type algorithm struct {
	id   int64 // negative, as all of these are
	hash crypto.Hash
	size int // of the signature, in octets
}

func algorithmOf(key crypto.PublicKey) (algorithm, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return algorithm{-7, crypto.SHA256, 64}, nil
		case elliptic.P384():
			return algorithm{-35, crypto.SHA384, 96}, nil
		}
	case ed25519.PublicKey:
		return algorithm{-8, 0, ed25519.SignatureSize}, nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 8192 {
			return algorithm{-37, crypto.SHA256, k.Size()}, nil
		}
	}
	return algorithm{}, fmt.Errorf("%w: key must be P-256, P-384, Ed25519 or RSA of 2048 to 8192 bits", ErrSigner)
}

var pssOptions = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}

func (a algorithm) digest(message []byte) []byte {
	if a.hash == 0 {
		return message
	}
	h := a.hash.New()
	h.Write(message)
	return h.Sum(nil)
}

// sign returns a signature in its COSE form.
func (a algorithm) sign(key crypto.Signer, message []byte) ([]byte, error) {
	var opts crypto.SignerOpts = a.hash
	if a.id == -37 {
		opts = pssOptions
	}
	sig, err := key.Sign(rand.Reader, a.digest(message), opts)
	if err != nil {
		return nil, fmt.Errorf("pack: sign: %w", err)
	}
	if a.id == -7 || a.id == -35 {
		var rs struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(sig, &rs); err != nil || len(rest) > 0 || rs.R.Sign() <= 0 || rs.S.Sign() <= 0 ||
			rs.R.BitLen() > a.size*4 || rs.S.BitLen() > a.size*4 {
			return nil, fmt.Errorf("pack: sign: the key did not give an ECDSA signature")
		}
		sig = make([]byte, a.size)
		rs.R.FillBytes(sig[:a.size/2])
		rs.S.FillBytes(sig[a.size/2:])
	}
	return sig, nil
}

func (a algorithm) verify(key crypto.PublicKey, message, sig []byte) bool {
	if len(sig) != a.size {
		return false
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		r, s := new(big.Int).SetBytes(sig[:a.size/2]), new(big.Int).SetBytes(sig[a.size/2:])
		return ecdsa.Verify(k, a.digest(message), r, s)
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPSS(k, a.hash, a.digest(message), sig, pssOptions) == nil
	}
	return false
}

// Signer signs the packs and deltas of one issuing CA. It is safe for concurrent use if its key is.
type Signer struct {
	issuer, cert *x509.Certificate // the same if the issuer signs itself
	key          crypto.Signer
	alg          algorithm
	brief        bool
}

// NewSigner makes a signer. If delegate is nil, key is the issuer's own; otherwise key is the delegate's, and each pack
// carries the delegate's certificate, which must outlive what it signs.
func NewSigner(issuer *x509.Certificate, key crypto.Signer, delegate *x509.Certificate) (*Signer, error) {
	s := &Signer{issuer: issuer, cert: issuer, key: key}
	if delegate != nil {
		s.cert = delegate
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(s.cert.PublicKey) {
		return nil, fmt.Errorf("%w: key is not that of the certificate %q", ErrSigner, s.cert.Subject)
	}
	var err error
	s.alg, err = algorithmOf(s.cert.PublicKey)
	return s, err
}

// Brief returns a signer that leaves the delegate's certificate out of deltas, for relying parties that hold a pack or
// an earlier delta by the same delegate. Others get [ErrSigner] and fetch a full pack.
func (s *Signer) Brief() *Signer {
	brief := *s
	brief.brief = true
	return &brief
}

func (s *Signer) check() error {
	if s.cert == s.issuer {
		return checkIssuer(s.issuer)
	}
	return checkDelegate(s.issuer, s.cert)
}

// checkIssuer holds an issuing CA that signs packs itself to what it would need to sign CRLs (RFC 5280 §4.2.1.3).
func checkIssuer(issuer *x509.Certificate) error {
	if !issuer.BasicConstraintsValid || !issuer.IsCA || issuer.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return fmt.Errorf("%w: issuer %q is not a CA with key usage cRLSign", ErrSigner, issuer.Subject)
	}
	return nil
}

// acceptIssuer refuses RSA keys that can be factored, or cost too much to verify with. crypto/x509 refuses MD5 and
// SHA-1 by itself.
func acceptIssuer(by crypto.PublicKey) error {
	if k, ok := by.(*rsa.PublicKey); ok {
		if n := k.N.BitLen(); n < 2048 || n > 8192 {
			return fmt.Errorf("its issuer's key is RSA of %d bits: 2048 to 8192 are accepted", n)
		}
	}
	return nil
}

// checkDelegate holds a delegated certificate to all rules but those that take the pack to tell.
func checkDelegate(issuer, cert *x509.Certificate) error {
	refuse := func(why string) error {
		return fmt.Errorf("%w: delegated certificate %q: %s", ErrSigner, cert.Subject, why)
	}
	switch {
	case !bytes.Equal(cert.RawIssuer, issuer.RawSubject):
		return refuse("names another issuer")
	case len(cert.AuthorityKeyId) == 0 || !bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId):
		return refuse("authority key identifier is not the issuer's")
	case cert.IsCA:
		return refuse("is a CA")
	case cert.KeyUsage != x509.KeyUsageDigitalSignature:
		return refuse("key usage must be digitalSignature alone")
	case len(cert.ExtKeyUsage) != 0 || len(cert.UnknownExtKeyUsage) != 1 || !cert.UnknownExtKeyUsage[0].Equal(signingEKU):
		return refuse("extended key usage must be " + signingEKU.String() + " alone")
	case len(cert.UnhandledCriticalExtensions) != 0:
		return refuse("has an unknown critical extension")
	}
	if err := acceptIssuer(issuer.PublicKey); err != nil {
		return refuse(err.Error())
	}
	if err := cert.CheckSignatureFrom(issuer); err != nil {
		return refuse(err.Error())
	}
	return nil
}

// vouches checks the rules on a delegate that take a state to tell: its certificate lives through the times of the
// state, and the state does not revoke it.
func vouches(issuer, cert *x509.Certificate, st *State) error {
	if cert == issuer {
		return nil
	}
	if st.header.ThisUpdate.Before(cert.NotBefore) || st.header.NextUpdate.After(cert.NotAfter) {
		return fmt.Errorf("%w: delegated certificate %q does not live from thisUpdate to nextUpdate", ErrSigner, cert.Subject)
	}
	return notRevoked(issuer, cert, st)
}

func notRevoked(issuer, cert *x509.Certificate, st *State) error {
	if index, ok := Index(cert.SerialNumber.Bytes()); ok && cert != issuer && st.Index(index) == Revoked {
		return fmt.Errorf("%w: delegated certificate %q is revoked", ErrSigner, cert.Subject)
	}
	return nil
}

// Sign makes the full pack of a state. base is the hash of the state in the full pack published before, or zero.
func (s *State) Sign(by *Signer, base Hash) ([]byte, error) {
	return by.seal(s, contentType, nil, s.appendPack(nil, base))
}

// Delta makes the delta pack that turns s into next. It costs in proportion to what lies between them and the number of blocks.
func (s *State) Delta(next *State, by *Signer) ([]byte, error) {
	if err := next.header.follows(&s.header); err != nil {
		return nil, err
	}
	return by.seal(next, "", s.hash[:], s.appendDelta(nil, next))
}

func (s *Signer) seal(st *State, contentType string, aad, payload []byte) ([]byte, error) {
	if st.header.Issuer != IssuerHash(s.issuer) {
		return nil, fmt.Errorf("%w: state is not of %q", ErrIssuer, s.issuer.Subject)
	}
	if err := vouches(s.issuer, s.cert, st); err != nil {
		return nil, err
	}
	e := envelope{contentType: contentType, kid: keyID(s.cert), alg: s.alg.id, payload: payload}
	if s.cert != s.issuer && (contentType != "" || !s.brief) {
		if len(s.cert.Raw) > maxCertificate {
			return nil, fmt.Errorf("%w: delegated certificate above %d octets", ErrSigner, maxCertificate)
		}
		e.cert = s.cert.Raw
	}
	e.protected = e.appendProtected(nil)
	message := e.toBeSigned(aad)
	var err error
	if e.signature, err = s.alg.sign(s.key, message); err != nil {
		return nil, err
	}
	// Tokens fail too: nothing leaves that does not verify.
	if !s.alg.verify(s.cert.PublicKey, message, e.signature) {
		return nil, fmt.Errorf("%w: the key gave one that does not verify", ErrSignature)
	}
	return e.append(nil), nil
}
