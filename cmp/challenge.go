package cmp

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/subtle"
	"math/big"

	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/cms"
)

//	POPODecKeyChallContent ::= SEQUENCE OF Challenge
//	Challenge ::= SEQUENCE {
//	    owf                 AlgorithmIdentifier OPTIONAL,
//	    witness             OCTET STRING,
//	    challenge           OCTET STRING,
//	    encryptedRand   [0] EnvelopedData OPTIONAL }
//	POPODecKeyRespContent ::= SEQUENCE OF INTEGER
//	Rand ::= SEQUENCE { int INTEGER, sender GeneralName }

// Challenges is the body of popdecc: one challenge per request, in their order
// (RFC 9810 §5.2.8.3.3).
type Challenges struct{ List []Challenge }

// Type implements Body.
func (*Challenges) Type() BodyType { return POPDecC }

// Challenge is one Challenge.
type Challenge struct {
	OWF           Algorithm // absent: that of the challenge before
	Witness       []byte    // the hash of the INTEGER
	Challenge     []byte    // Rand encrypted, in version 2; empty in version 3
	EncryptedRand []byte    // EnvelopedData in DER holding Rand, in version 3; nil when absent
}

// ChallengeAnswers is the body of popdecr: the integers, in the order of the challenges.
type ChallengeAnswers struct{ List []*big.Int }

// Type implements Body.
func (*ChallengeAnswers) Type() BodyType { return POPDecR }

// Rand is what a challenge encrypts.
type Rand struct {
	Int    *big.Int
	Sender GeneralName // of the message that carries the challenge
}

// Marshal encodes r.
func (r Rand) Marshal() ([]byte, error) {
	return encode(128, func(b *out) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			addBigInt(b, r.Int, "the INTEGER of Rand")
			addGeneralName(b, r.Sender)
		})
	})
}

// ParseRand decodes what a challenge has decrypted to.
func ParseRand(raw []byte) (Rand, error) {
	return parseValue(raw, "Rand", func(r *in) Rand {
		s := r.seq("Rand")
		v := Rand{Int: s.bigInt("int"), Sender: readGeneralName(&s)}
		s.end("Rand")
		return v
	})
}

// challengeBits is the length of the random number in a challenge.
const challengeBits = 256

// NewChallenge makes a challenge in the form of version 3 (RFC 9810 §5.2.8.3.3).
// sender must be that of the message that will carry it: see [MAC.Sender] and
// [Signer.Sender]. The number is not returned: [Challenge.Answered] knows it by its hash.
func NewChallenge(sender GeneralName, to Recipient) (Challenge, error) {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), challengeBits))
	if err != nil {
		return Challenge{}, err
	}
	raw, err := Rand{Int: number, Sender: sender}.Marshal()
	if err != nil {
		return Challenge{}, err
	}
	c := Challenge{OWF: Algorithm{OID: oidOfHash(crypto.SHA256)}, Witness: witness(crypto.SHA256, number), Challenge: []byte{}}
	c.EncryptedRand, err = to.seal(cms.Content{Type: cms.TypeData, Bytes: raw})
	return c, err
}

// witness hashes the DER of the INTEGER.
func witness(hash crypto.Hash, number *big.Int) []byte {
	h := hash.New()
	h.Write(mustEncode(func(b *out) { b.AddASN1BigInt(number) }))
	return h.Sum(nil)
}

// Answered reports whether a number is the one in the challenge, which must be
// the first of its message, made by NewChallenge.
func (c Challenge) Answered(number *big.Int) bool {
	hash, ok := hashByOID(c.OWF.OID)
	return ok && number.Sign() >= 0 && number.BitLen() <= challengeBits && subtle.ConstantTimeCompare(witness(hash, number), c.Witness) == 1
}

// Open decrypts a challenge of version 3 and returns the number to answer with.
// What decrypts to anything but a Rand that names sender, the sender of the message
// that carried it, is not handed out (RFC 9810 §8.2). Errors carry badDataFormat or badAlg.
func (c Challenge) Open(with Opener, sender GeneralName) (*big.Int, error) {
	if c.EncryptedRand == nil {
		return nil, refuse(BadDataFormat, "RFC 9810 §5.2.8.3.3", "the challenge has no encryptedRand, which version 3 demands")
	}
	content, err := with.open(c.EncryptedRand, cms.TypeData)
	if err != nil {
		return nil, err
	}
	r, err := ParseRand(content.Bytes)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(r.Sender, sender) {
		return nil, refuse(BadDataFormat, "RFC 9810 §8.2", "the challenge was made for a message of another sender")
	}
	return r.Int, nil
}

func readChallenge(r *in) Challenge {
	s := r.seq("Challenge")
	var c Challenge
	if s.has(asn1.SEQUENCE) {
		c.OWF = readAlgorithm(&s)
	}
	c.Witness = s.octets("witness")
	c.Challenge = s.octets("challenge")
	// RFC 9810's module has EXPLICIT tags throughout.
	if s.has(context(0)) {
		e := s.sub(context(0), "encryptedRand")
		c.EncryptedRand = e.element(asn1.SEQUENCE, "encryptedRand")
		e.end("encryptedRand")
	}
	s.end("Challenge")
	return c
}

func (v *Challenges) add(b *out) {
	addList(b, v.List, func(b *out, c Challenge) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			if c.OWF.Present() {
				addAlgorithm(b, c.OWF)
			}
			b.AddASN1OctetString(c.Witness)
			b.AddASN1OctetString(c.Challenge)
			if c.EncryptedRand != nil {
				addExplicit(b, 0, func(b *out) { addRaw(b, c.EncryptedRand, "encryptedRand") })
			}
		})
	})
}

func (v *ChallengeAnswers) add(b *out) {
	addList(b, v.List, func(b *out, n *big.Int) { addBigInt(b, n, "answer") })
}
