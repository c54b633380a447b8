package est

import (
	"crypto"
	"crypto/hmac"
	encasn1 "encoding/asn1"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/device"
)

// macs are the digests and HMACs that proofs may use. The first controls, of
// which SHA-1 is part, are not taken.
var macs = []struct {
	hash, hmac encasn1.ObjectIdentifier
	is         crypto.Hash
}{
	{encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, encasn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, crypto.SHA256},
	{encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, encasn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}, crypto.SHA384},
	{encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, encasn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}, crypto.SHA512},
}

// proof is IdentityProofV2 and PopLinkWitnessV2, which have one form (RFC 5272 §6.2.1, §6.3.1.1):
//
//	SEQUENCE { hashAlgID AlgorithmIdentifier, macAlgID AlgorithmIdentifier, witness OCTET STRING }
type proof struct {
	hash, mac crypto.Hash
	witness   []byte
}

var (
	errProofForm      = errors.New("not as RFC 5272 §6.2.1 has it")
	errProofAlgorithm = errors.New("algorithm not taken: use SHA-256 or longer, and HMAC with it")
)

func parseProof(in cryptobyte.String) (proof, error) {
	var body, hash, mac, witness cryptobyte.String
	var hashOID, macOID encasn1.ObjectIdentifier
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !in.Empty() || !body.ReadASN1(&hash, asn1.SEQUENCE) || !hash.ReadASN1ObjectIdentifier(&hashOID) ||
		!body.ReadASN1(&mac, asn1.SEQUENCE) || !mac.ReadASN1ObjectIdentifier(&macOID) ||
		!body.ReadASN1(&witness, asn1.OCTET_STRING) || !body.Empty() || len(witness) == 0 || len(witness) > maxNonce {
		return proof{}, errProofForm
	}
	p := proof{witness: witness}
	for _, known := range macs {
		if known.hash.Equal(hashOID) && plainParameters(hash) {
			p.hash = known.is
		}
		if known.hmac.Equal(macOID) && plainParameters(mac) {
			p.mac = known.is
		}
	}
	if p.hash == 0 || p.mac == 0 {
		return proof{}, errProofAlgorithm
	}
	return p, nil
}

func plainParameters(s cryptobyte.String) bool {
	return s.Empty() || string(s) == "\x05\x00"
}

// holds reports whether the witness is over message with the secret; suffix is
// the identification, which goes into the key of an identity proof (RFC 5272 §6.2.3).
func (p proof) holds(secret device.Secret, suffix, message []byte) bool {
	h := p.hash.New()
	h.Write(slices.Concat([]byte(secret), suffix))
	m := hmac.New(p.mac.New, h.Sum(nil))
	m.Write(message)
	return hmac.Equal(m.Sum(nil), p.witness)
}
