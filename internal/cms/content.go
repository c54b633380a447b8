package cms

import (
	"bytes"
	"crypto/x509"
	encasn1 "encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// Errors that callers may want to tell apart; those of this package wrap them.
var (
	// ErrMalformed says that a message cannot be read.
	ErrMalformed = errors.New("not a CMS message")
	// ErrAlgorithm says that a message, or a key, wants an algorithm not spoken here.
	ErrAlgorithm = errors.New("algorithm not supported")
	// ErrSignature says that a signature, or what it covers, is not right.
	ErrSignature = errors.New("the signature does not verify")
	// ErrRecipient says that a message is encrypted to other keys.
	ErrRecipient = errors.New("not encrypted to this key")
	// ErrDecrypt is all that is said of a message that does not decrypt, since
	// every further word would help whoever sends forged ones.
	ErrDecrypt = errors.New("the message does not decrypt")
)

// OID is an object identifier.
type OID = encasn1.ObjectIdentifier

// Content types.
var (
	TypeData          = OID{1, 2, 840, 113549, 1, 7, 1}
	TypeSigned        = OID{1, 2, 840, 113549, 1, 7, 2}
	TypeEnveloped     = OID{1, 2, 840, 113549, 1, 7, 3}
	TypeAuthEnveloped = OID{1, 2, 840, 113549, 1, 9, 16, 1, 23} // RFC 5083
	TypeKeyPackage    = OID{2, 16, 840, 1, 101, 2, 1, 2, 78, 5} // AsymmetricKeyPackage, RFC 5958
)

// Content is content with its type. Bytes are what an encapsulating OCTET STRING
// holds: the DER of the type's structure, or plain octets for TypeData.
type Content struct {
	Type  OID
	Bytes []byte
}

// Info wraps a structured content in ContentInfo (RFC 5652 §3), which is what files hold:
//
//	ContentInfo ::= SEQUENCE { contentType OBJECT IDENTIFIER, content [0] EXPLICIT ANY }
func (c Content) Info() []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(c.Bytes)+64))
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(c.Type)
		b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddBytes(c.Bytes) })
	})
	return b.BytesOrPanic() // fails only beyond 4 GiB
}

// ParseInfo reads a ContentInfo of at most [MaxSize] octets. What it holds
// shares memory with msg and is well-formed DER of one SEQUENCE. Errors wrap ErrMalformed.
func ParseInfo(msg []byte) (Content, error) {
	var c Content
	if len(msg) > MaxSize {
		return c, malformed("%d octets, more than %d", len(msg), MaxSize)
	}
	if err := der.Check(msg, maxDepth); err != nil {
		return c, malformed("%w", err)
	}
	info, err := der.Whole(msg, asn1.SEQUENCE)
	if err != nil {
		return c, malformed("%w", err)
	}
	var explicit, content cryptobyte.String
	if !info.ReadASN1ObjectIdentifier(&c.Type) || !info.ReadASN1(&explicit, tag0) || !info.Empty() ||
		!explicit.ReadASN1Element(&content, asn1.SEQUENCE) || !explicit.Empty() {
		return c, malformed("ContentInfo is not as RFC 5652 §3 has it")
	}
	c.Bytes = content
	return c, nil
}

// open checks type, size and form of a structured content and returns what is in its SEQUENCE.
func (c Content) open(want OID) (cryptobyte.String, error) {
	if !c.Type.Equal(want) {
		return nil, malformed("content type %s, not %s", c.Type, want)
	}
	if len(c.Bytes) > MaxSize {
		return nil, malformed("%d octets, more than %d", len(c.Bytes), MaxSize)
	}
	if err := der.Check(c.Bytes, maxDepth); err != nil {
		return nil, malformed("%w", err)
	}
	body, err := der.Whole(c.Bytes, asn1.SEQUENCE)
	if err != nil {
		return nil, malformed("%w", err)
	}
	return body, nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrAlgorithm, fmt.Errorf(format, args...))
}

// ID names a key: by issuer and serial number of its certificate, or by subject
// key identifier. The zero ID names none.
type ID struct {
	Issuer []byte // DER of the Name
	Serial *big.Int
	KeyID  []byte // used if it is set
}

// IDOf names a certificate by issuer and serial number, which every certificate has.
func IDOf(cert *x509.Certificate) ID { return ID{Issuer: cert.RawIssuer, Serial: cert.SerialNumber} }

// IsZero reports whether the ID names nothing.
func (id ID) IsZero() bool { return id.KeyID == nil && id.Serial == nil }

// Equal reports whether both name the same key in the same way.
func (id ID) Equal(other ID) bool {
	if id.KeyID != nil || other.KeyID != nil {
		return id.KeyID != nil && bytes.Equal(id.KeyID, other.KeyID)
	}
	return id.Serial != nil && other.Serial != nil && id.Serial.Cmp(other.Serial) == 0 && bytes.Equal(id.Issuer, other.Issuer)
}

// Names reports whether the ID names the certificate.
func (id ID) Names(cert *x509.Certificate) bool {
	if id.KeyID != nil {
		return bytes.Equal(id.KeyID, cert.SubjectKeyId)
	}
	return id.Equal(IDOf(cert))
}

// maxKeyID is the longest key identifier read, in octets.
const maxKeyID = 255

// add writes SignerIdentifier and RecipientIdentifier (RFC 5652 §5.3, §6.2.1):
//
//	CHOICE { issuerAndSerialNumber SEQUENCE { issuer Name, serialNumber INTEGER },
//	         subjectKeyIdentifier [0] IMPLICIT OCTET STRING }
func (id ID) add(b *cryptobyte.Builder) {
	if id.KeyID != nil {
		b.AddASN1(keyID0, func(b *cryptobyte.Builder) { b.AddBytes(id.KeyID) })
		return
	}
	if id.IsZero() {
		b.SetError(errors.New("cms: the key has no identifier"))
		return
	}
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(id.Issuer)
		b.AddASN1BigInt(id.Serial)
	})
}

func readID(s *cryptobyte.String) (ID, bool) {
	if s.PeekASN1Tag(keyID0) {
		var keyID cryptobyte.String
		ok := s.ReadASN1(&keyID, keyID0) && len(keyID) > 0 && len(keyID) <= maxKeyID
		return ID{KeyID: keyID}, ok
	}
	var named, issuer cryptobyte.String
	serial := new(big.Int)
	ok := s.ReadASN1(&named, asn1.SEQUENCE) && named.ReadASN1Element(&issuer, asn1.SEQUENCE) &&
		named.ReadASN1Integer(serial) && named.Empty()
	return ID{Issuer: issuer, Serial: serial}, ok
}

var (
	tag2   = asn1.Tag(2).ContextSpecific().Constructed()
	tag3   = asn1.Tag(3).ContextSpecific().Constructed()
	keyID0 = asn1.Tag(0).ContextSpecific()
	null   = []byte{5, 0}
)

// addAlgorithm writes AlgorithmIdentifier ::= SEQUENCE { algorithm OBJECT IDENTIFIER, parameters ANY OPTIONAL };
// parameters are DER, or nil for none.
func addAlgorithm(b *cryptobyte.Builder, algorithm OID, parameters []byte) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(algorithm)
		b.AddBytes(parameters)
	})
}

// readAlgorithm reads an AlgorithmIdentifier; parameters are empty if absent.
func readAlgorithm(s *cryptobyte.String, tag asn1.Tag) (algorithm OID, parameters cryptobyte.String, ok bool) {
	var body, element cryptobyte.String
	var t asn1.Tag
	if !s.ReadASN1(&body, tag) || !body.ReadASN1ObjectIdentifier(&algorithm) {
		return nil, nil, false
	}
	parameters = body
	return algorithm, parameters, body.Empty() || body.ReadAnyASN1Element(&element, &t) && body.Empty()
}

// plain reports whether parameters say nothing: absent or NULL, which peers mix up.
func plain(parameters cryptobyte.String) bool {
	return parameters.Empty() || bytes.Equal(parameters, null)
}

// addSet writes a SET OF in the order of DER (X.690 §11.6).
func addSet(b *cryptobyte.Builder, tag asn1.Tag, elements ...[]byte) {
	b.AddASN1(tag, func(b *cryptobyte.Builder) {
		for _, e := range slices.SortedFunc(slices.Values(elements), bytes.Compare) {
			b.AddBytes(e)
		}
	})
}

// encode runs a builder whose output may not be reallocated, since copies of
// secrets left behind cannot be wiped; size is an upper bound of the output.
func encode(size int, f cryptobyte.BuilderContinuation) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, size))
	f(b)
	return b.Bytes()
}
