package cms

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// Capabilities are the algorithms that a peer says it reads, in the order of its preference.
type Capabilities []OID

// maxCapabilities is how many are read.
const maxCapabilities = 64

// ParseCapabilities reads the value of an SMIMECapabilities attribute (RFC 8551 §2.5.2):
//
//	SMIMECapabilities ::= SEQUENCE OF SEQUENCE { capabilityID OBJECT IDENTIFIER, parameters ANY OPTIONAL }
//
// A key wrap that stands as parameter of a key agreement counts as listed (RFC
// 5753 §8); all other parameters are passed over. Errors wrap ErrMalformed.
func ParseCapabilities(in []byte) (Capabilities, error) {
	if err := der.Check(in, maxDepth); err != nil {
		return nil, malformed("SMIMECapabilities: %w", err)
	}
	list, err := der.Whole(in, asn1.SEQUENCE)
	if err != nil {
		return nil, malformed("SMIMECapabilities: %w", err)
	}
	var out Capabilities
	for !list.Empty() {
		oid, parameters, ok := readAlgorithm(&list, asn1.SEQUENCE)
		if !ok || len(out) >= maxCapabilities {
			return nil, malformed("SMIMECapabilities: not a list of at most %d algorithms", maxCapabilities)
		}
		out = append(out, oid)
		if wrapping, _, ok := readAlgorithm(&parameters, asn1.SEQUENCE); ok && wrapKeySize(wrapping) > 0 {
			out = append(out, wrapping)
		}
	}
	return out, nil
}

// Cipher is the first cipher listed with which the peer can read what is sealed
// to the recipient; both content encryption and the key's must be listed. Where no
// content encryption is, AES-CBC is taken, which every reader of EnvelopedData has.
func (c Capabilities) Cipher(to Recipient) (Cipher, bool) {
	var candidates []Cipher
	for _, oid := range c {
		for _, known := range ciphers {
			if known.oid.Equal(oid) {
				candidates = append(candidates, known.cipher)
			}
		}
	}
	if candidates == nil {
		candidates = []Cipher{AES256CBC, AES128CBC}
	}
	for _, candidate := range candidates {
		if slices.ContainsFunc(c, to.wants(candidate.KeySize()).Equal) {
			return candidate, true
		}
	}
	return 0, false
}

func (rsaRecipient) wants(int) OID          { return oidOAEP }
func (ecdhRecipient) wants(keySize int) OID { return wrapOID(keySize) }
func (k kek) wants(int) OID                 { return wrapOID(len(k.key)) }
func (p password) wants(keySize int) OID {
	if p.aesWrap {
		return wrapOID(keySize)
	}
	return oidPWRIKEK
}

// Bytes is the DER of the attribute's value, without parameters.
func (c Capabilities) Bytes() []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, oid := range c {
			addAlgorithm(b, oid, nil)
		}
	})
	return b.BytesOrPanic()
}
