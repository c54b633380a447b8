package cms

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// SignedData with one signer (RFC 5652 §5.1, §5.3):
//
//	SignedData ::= SEQUENCE {
//	    version            INTEGER,                  -- 1, or 3 (see below)
//	    digestAlgorithms   SET OF AlgorithmIdentifier,
//	    encapContentInfo   SEQUENCE { eContentType OBJECT IDENTIFIER, eContent [0] EXPLICIT OCTET STRING },
//	    certificates   [0] IMPLICIT SET OF CertificateChoices OPTIONAL,
//	    crls           [1] IMPLICIT SET OF RevocationInfoChoice OPTIONAL,
//	    signerInfos        SET OF SignerInfo }
//
//	SignerInfo ::= SEQUENCE {
//	    version            INTEGER,                  -- 1 with issuer and serial number, 3 with key identifier
//	    sid                SignerIdentifier,
//	    digestAlgorithm    AlgorithmIdentifier,
//	    signedAttrs    [0] IMPLICIT SET OF Attribute,
//	    signatureAlgorithm AlgorithmIdentifier,
//	    signature          OCTET STRING,
//	    unsignedAttrs  [1] IMPLICIT SET OF Attribute OPTIONAL }

var (
	oidContentType   = OID{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = OID{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = OID{1, 2, 840, 113549, 1, 9, 5}
)

// Signer is who signs, and what goes along.
type Signer struct {
	Key   crypto.Signer // ECDSA on P-256, P-384 or P-521; RSA; Ed25519
	ID    ID            // of Key
	Certs [][]byte      // DER, carried in the message; the signer's and its chain
	PSS   bool          // RSA signs with PSS instead of PKCS#1 v1.5
	Time  time.Time     // signingTime; zero for none
	// InOrder leaves Certs as they stand, the signer's first (RFC 9483 §4.1.6), and not in DER's order of a set.
	InOrder bool
}

// Sign makes SignedData over content, with signed attributes always. What the
// key returned is verified before it is handed out. Errors wrap ErrAlgorithm or the signer's own.
func Sign(content Content, s Signer) (Content, error) {
	scheme, err := schemeFor(s.Key.Public(), s.PSS)
	if err != nil {
		return Content{}, err
	}
	attrs, err := signedAttributes(content, sum(scheme.hash, content.Bytes), s.Time)
	if err != nil {
		return Content{}, err
	}
	signature, err := s.Key.Sign(rand.Reader, scheme.input(attrs), scheme.options())
	if err != nil {
		return Content{}, fmt.Errorf("signing a CMS message: %w", err)
	}
	if !scheme.verify(s.Key.Public(), attrs, signature) {
		return Content{}, fmt.Errorf("what the signer returned is no signature: %w", ErrSignature)
	}
	infoVersion := int64(1)
	if s.ID.KeyID != nil {
		infoVersion = 3
	}
	version := infoVersion
	if !content.Type.Equal(TypeData) {
		version = 3
	}
	size := 4096 + len(content.Bytes) + len(attrs) + len(signature)
	for _, c := range s.Certs {
		size += len(c)
	}
	out, err := encode(size, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(version)
			b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, hashOID(scheme.hash), nil) })
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(content.Type)
				b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(content.Bytes) })
			})
			switch {
			case s.InOrder:
				b.AddASN1(tag0, func(b *cryptobyte.Builder) {
					for _, c := range s.Certs {
						b.AddBytes(c)
					}
				})
			case len(s.Certs) > 0:
				addSet(b, tag0, s.Certs...)
			}
			b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1Int64(infoVersion)
					s.ID.add(b)
					addAlgorithm(b, hashOID(scheme.hash), nil)
					b.AddBytes(retag(attrs, 0xa0))
					scheme.add(b)
					b.AddASN1OctetString(signature)
				})
			})
		})
	})
	if err != nil {
		return Content{}, fmt.Errorf("cms: encoding SignedData: %w", err)
	}
	return Content{TypeSigned, out}, nil
}

// signedAttributes is the DER of the SET OF that is signed (RFC 5652 §5.4).
func signedAttributes(content Content, digest []byte, at time.Time) ([]byte, error) {
	attribute := func(oid OID, value cryptobyte.BuilderContinuation) []byte {
		out, _ := encode(128, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oid)
				b.AddASN1(asn1.SET, value)
			})
		})
		return out
	}
	attrs := [][]byte{
		attribute(oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(content.Type) }),
		attribute(oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest) }),
	}
	if !at.IsZero() {
		attrs = append(attrs, attribute(oidSigningTime, func(b *cryptobyte.Builder) {
			if at = at.UTC(); at.Year() < 2050 {
				b.AddASN1UTCTime(at)
			} else {
				b.AddASN1GeneralizedTime(at)
			}
		}))
	}
	return encode(512, func(b *cryptobyte.Builder) { addSet(b, asn1.SET, attrs...) })
}

// retag is der under another one-octet tag.
func retag(der []byte, tag byte) []byte {
	out := bytes.Clone(der)
	out[0] = tag
	return out
}

// Signed is a SignedData that was read. Nothing in it is to be believed before
// Verify returned nil.
type Signed struct {
	Content Content
	Certs   [][]byte // DER, as they came; empty if there are none
	Signer  ID

	hash      crypto.Hash
	scheme    scheme
	attrs     []byte // as signed
	digest    []byte
	signature []byte
}

// ParseSigned reads a SignedData that has content, one signer, and signed
// attributes; CRLs and unsigned attributes are passed over. The result shares
// memory with c. Errors wrap ErrMalformed or ErrAlgorithm.
func ParseSigned(c Content) (*Signed, error) {
	body, err := c.open(TypeSigned)
	if err != nil {
		return nil, err
	}
	var version int
	var digests, encap, explicit, content, bag, crls, signers, info cryptobyte.String
	var hasCerts, hasCRLs bool
	s := &Signed{}
	if !body.ReadASN1Integer(&version) || version < 1 || version > 5 || !body.ReadASN1(&digests, asn1.SET) ||
		!body.ReadASN1(&encap, asn1.SEQUENCE) || !encap.ReadASN1ObjectIdentifier(&s.Content.Type) {
		return nil, malformed("SignedData is not as RFC 5652 §5.1 has it")
	}
	if !encap.ReadASN1(&explicit, tag0) || !encap.Empty() || !explicit.ReadASN1(&content, asn1.OCTET_STRING) || !explicit.Empty() {
		return nil, malformed("SignedData without its content in one OCTET STRING")
	}
	if !body.ReadOptionalASN1(&bag, &hasCerts, tag0) || !body.ReadOptionalASN1(&crls, &hasCRLs, tag1) ||
		!body.ReadASN1(&signers, asn1.SET) || !body.Empty() {
		return nil, malformed("SignedData is not as RFC 5652 §5.1 has it")
	}
	s.Content.Bytes = content
	if !bag.Empty() {
		if s.Certs, err = readBag(bag); err != nil {
			return nil, malformed("%w", err)
		}
	}
	if !signers.ReadASN1(&info, asn1.SEQUENCE) || !signers.Empty() {
		return nil, malformed("SignedData does not have one signer")
	}
	return s, s.readSignerInfo(info)
}

func (s *Signed) readSignerInfo(info cryptobyte.String) error {
	var version int
	var attrs, signature, unsigned cryptobyte.String
	var hasUnsigned, ok bool
	if !info.ReadASN1Integer(&version) {
		return malformed("SignerInfo without version")
	}
	if s.Signer, ok = readID(&info); !ok || version != 1 && version != 3 {
		return malformed("SignerInfo without signer identifier")
	}
	var err error
	if s.hash, err = readHash(&info); err != nil {
		return err
	}
	if !info.ReadASN1Element(&attrs, tag0) {
		return malformed("SignerInfo without signed attributes")
	}
	s.attrs = retag(attrs, 0x31)
	if s.scheme, err = readScheme(&info); err != nil {
		return err
	}
	if s.scheme.hash == 0 {
		s.scheme.hash = s.hash
	}
	if s.scheme.hash != s.hash {
		return unsupported("digest and signature algorithm have different hashes")
	}
	if !info.ReadASN1(&signature, asn1.OCTET_STRING) || !info.ReadOptionalASN1(&unsigned, &hasUnsigned, tag1) || !info.Empty() {
		return malformed("SignerInfo is not as RFC 5652 §5.3 has it")
	}
	s.signature = signature
	return s.readAttributes(attrs)
}

// readAttributes wants contentType and messageDigest once each, with one value (RFC 5652 §5.3, §11).
func (s *Signed) readAttributes(element cryptobyte.String) error {
	var attrs cryptobyte.String
	var seen []string
	element.ReadASN1(&attrs, tag0)
	for !attrs.Empty() {
		var attr, values, digest cryptobyte.String
		var oid, contentType OID
		if !attrs.ReadASN1(&attr, asn1.SEQUENCE) || !attr.ReadASN1ObjectIdentifier(&oid) || !attr.ReadASN1(&values, asn1.SET) || !attr.Empty() {
			return malformed("a signed attribute is none")
		}
		if slices.Contains(seen, oid.String()) || len(seen) == 16 {
			return malformed("a signed attribute comes twice, or there are more than 16")
		}
		seen = append(seen, oid.String())
		switch {
		case oid.Equal(oidContentType):
			if !values.ReadASN1ObjectIdentifier(&contentType) || !values.Empty() || !contentType.Equal(s.Content.Type) {
				return malformed("the signed content type is not that of the content")
			}
		case oid.Equal(oidMessageDigest):
			if !values.ReadASN1(&digest, asn1.OCTET_STRING) || !values.Empty() {
				return malformed("the signed digest is none")
			}
			s.digest = digest
		}
	}
	if s.digest == nil || !slices.Contains(seen, oidContentType.String()) {
		return malformed("content type and digest are not both signed")
	}
	return nil
}

// Verify checks digest and signature with the signer's key; whose key that is,
// and whether to trust it, is for the caller. Errors wrap ErrSignature.
func (s *Signed) Verify(pub crypto.PublicKey) error {
	if !bytes.Equal(s.digest, sum(s.hash, s.Content.Bytes)) {
		return fmt.Errorf("%w: the content is not what was signed", ErrSignature)
	}
	if !s.scheme.verify(pub, s.attrs, s.signature) {
		return fmt.Errorf("%w: wrong key or forged", ErrSignature)
	}
	return nil
}

// SignerCert finds the certificate in the message that its signer says is its
// own; nil if there is none.
func (s *Signed) SignerCert() *x509.Certificate {
	for _, raw := range s.Certs {
		if cert, err := der.Certificate(raw); err == nil && s.Signer.Names(cert) {
			return cert
		}
	}
	return nil
}
