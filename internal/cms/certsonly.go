// Package cms speaks the Cryptographic Message Syntax (RFC 5652) as far as enrolment
// protocols need it: certs-only messages, SignedData with one signer, and
// EnvelopedData or AuthEnvelopedData to keys of all kinds. What it writes is DER; what
// it reads must have definite, shortest lengths, and is bounded.
//
// A private key made for a device travels as EnvelopedData(SignedData(AsymmetricKeyPackage)):
//
//	one, err := cms.OneAsymmetricKey(key)
//	pkg, err := cms.KeyPackage(one)
//	signed, err := cms.Sign(pkg, cms.Signer{Key: ca, ID: cms.IDOf(cert), Certs: [][]byte{cert.Raw}})
//	sealed, err := cms.Seal(signed, cms.AES256CBC, cms.ToECDH(id, pub))
//
// and back by [Open], [ParseSigned], Verify, [ParseKeyPackage].
package cms

import (
	"bytes"
	encasn1 "encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// Limits of ParseCertsOnly.
const (
	MaxCerts = 256     // certificates in one message
	MaxSize  = 1 << 20 // octets of one message
)

// maxDepth is far above what certificates nest to, and far below what hurts.
const maxDepth = 32

// ErrCertsOnly is wrapped by every error of ParseCertsOnly.
var ErrCertsOnly = errors.New("not a certs-only message")

var (
	tag0 = asn1.Tag(0).ContextSpecific().Constructed()
	tag1 = asn1.Tag(1).ContextSpecific().Constructed()
)

// The degenerate SignedData (RFC 5652 §5.1) that is a Simple PKI Response (RFC 5272 §4.1):
//
//	ContentInfo ::= SEQUENCE {
//	    contentType       OBJECT IDENTIFIER,               -- id-signedData
//	    content       [0] EXPLICIT SignedData }
//
//	SignedData ::= SEQUENCE {
//	    version           INTEGER,                         -- 1
//	    digestAlgorithms  SET OF AlgorithmIdentifier,      -- empty
//	    encapContentInfo  SEQUENCE {
//	        eContentType  OBJECT IDENTIFIER,               -- id-data
//	        eContent  [0] EXPLICIT OCTET STRING OPTIONAL },-- absent
//	    certificates  [0] IMPLICIT SET OF CertificateChoices OPTIONAL,
//	    crls          [1] IMPLICIT SET OF RevocationInfoChoice OPTIONAL,
//	    signerInfos       SET OF SignerInfo }              -- empty

// CertsOnly makes a certs-only message of certificates in DER, each kept octet
// for octet. They appear in the order that DER gives a SET OF (X.690 §11.6), as
// RFC 8951 §3 wants DER and RFC 5272 §4.1 forbids readers to lean on any order.
func CertsOnly(certs ...[]byte) []byte {
	// Different elements are never prefixes of each other, so plain
	// comparison is DER's comparison with padding.
	sorted := slices.SortedFunc(slices.Values(certs), bytes.Compare)
	size := 64
	for _, c := range sorted {
		size += len(c)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, size))
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(TypeSigned)
		b.AddASN1(tag0, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Uint64(1)
				b.AddASN1(asn1.SET, func(*cryptobyte.Builder) {})
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(TypeData) })
				if len(sorted) > 0 {
					b.AddASN1(tag0, func(b *cryptobyte.Builder) {
						for _, c := range sorted {
							b.AddBytes(c)
						}
					})
				}
				b.AddASN1(asn1.SET, func(*cryptobyte.Builder) {})
			})
		})
	})
	return b.BytesOrPanic() // fails only beyond 4 GiB
}

// ParseCertsOnly returns the certificates of a certs-only message in DER and in
// the order found, which means nothing. At least one, at most [MaxCerts]; each is
// well-formed DER with the tag of a certificate and not looked into further.
// The result shares memory with msg.
//
// Peers differ, so version 1 and 3, listed digest algorithms, any content type,
// and CRLs are accepted, and all but the certificates ignored. Content, a signer,
// an attribute certificate, BER (der.ErrIndefinite), trailing octets
// (der.ErrTrailing), and more than [MaxSize] octets are not. Errors wrap ErrCertsOnly.
func ParseCertsOnly(msg []byte) ([][]byte, error) {
	certs, err := parseCertsOnly(msg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertsOnly, err)
	}
	return certs, nil
}

func parseCertsOnly(msg []byte) ([][]byte, error) {
	if len(msg) > MaxSize {
		return nil, fmt.Errorf("%d octets, more than %d", len(msg), MaxSize)
	}
	if err := der.Check(msg, maxDepth); err != nil {
		return nil, err
	}
	info, err := der.Whole(msg, asn1.SEQUENCE)
	if err != nil {
		return nil, err
	}
	var contentType encasn1.ObjectIdentifier
	var explicit, signed cryptobyte.String
	if !info.ReadASN1ObjectIdentifier(&contentType) {
		return nil, errors.New("no content type")
	}
	if !contentType.Equal(TypeSigned) {
		return nil, fmt.Errorf("content type %s, not SignedData", contentType)
	}
	if !info.ReadASN1(&explicit, tag0) || !info.Empty() ||
		!explicit.ReadASN1(&signed, asn1.SEQUENCE) || !explicit.Empty() {
		return nil, errors.New("ContentInfo is not as RFC 5652 §3 has it")
	}

	var version int
	var digests, encap, bag, crls, signers cryptobyte.String
	var eContentType encasn1.ObjectIdentifier
	var hasCerts, hasCRLs bool
	if !signed.ReadASN1Integer(&version) {
		return nil, errors.New("no version")
	}
	if version != 1 && version != 3 {
		return nil, fmt.Errorf("version %d, not 1 or 3", version)
	}
	if !signed.ReadASN1(&digests, asn1.SET) ||
		!signed.ReadASN1(&encap, asn1.SEQUENCE) ||
		!encap.ReadASN1ObjectIdentifier(&eContentType) ||
		!signed.ReadOptionalASN1(&bag, &hasCerts, tag0) ||
		!signed.ReadOptionalASN1(&crls, &hasCRLs, tag1) ||
		!signed.ReadASN1(&signers, asn1.SET) || !signed.Empty() {
		return nil, errors.New("SignedData is not as RFC 5652 §5.1 has it")
	}
	if !encap.Empty() {
		return nil, errors.New("it has content")
	}
	if !signers.Empty() {
		return nil, errors.New("it is signed")
	}
	return readBag(bag)
}

func readBag(bag cryptobyte.String) ([][]byte, error) {
	var certs [][]byte
	for !bag.Empty() {
		if len(certs) == MaxCerts {
			return nil, fmt.Errorf("more than %d certificates", MaxCerts)
		}
		var cert cryptobyte.String
		if !bag.ReadASN1Element(&cert, asn1.SEQUENCE) {
			return nil, fmt.Errorf("number %d in the certificate set is no X.509 certificate", len(certs)+1)
		}
		certs = append(certs, slices.Clip(cert))
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificates")
	}
	return certs, nil
}
