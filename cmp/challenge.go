package cmp

import (
	"math/big"

	"golang.org/x/crypto/cryptobyte/asn1"
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
