package cmp

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"

	"golang.org/x/crypto/cryptobyte/asn1"
)

//	ProofOfPossession ::= CHOICE {
//	    raVerified        [0] NULL,
//	    signature         [1] POPOSigningKey,
//	    keyEncipherment   [2] POPOPrivKey,
//	    keyAgreement      [3] POPOPrivKey }
//	POPOSigningKey ::= SEQUENCE {
//	    poposkInput           [0] POPOSigningKeyInput OPTIONAL,
//	    algorithmIdentifier   AlgorithmIdentifier,
//	    signature             BIT STRING }
//	POPOSigningKeyInput ::= SEQUENCE {
//	    authInfo            CHOICE {
//	        sender              [0] GeneralName,
//	        publicKeyMAC        PKMACValue },
//	    publicKey           SubjectPublicKeyInfo }
//	PKMACValue ::= SEQUENCE { algId AlgorithmIdentifier, value BIT STRING }
//	POPOPrivKey ::= CHOICE {
//	    thisMessage       [0] BIT STRING,
//	    subsequentMessage [1] SubsequentMessage,   -- INTEGER
//	    dhMAC             [2] BIT STRING,
//	    agreeMAC          [3] PKMACValue,
//	    encryptedKey      [4] EnvelopedData }

// POPMethod is the alternative of a ProofOfPossession.
type POPMethod int

// The ways to prove possession of a private key (RFC 4211 §4).
const (
	RAVerified      POPMethod = iota // an RA has checked it
	SignaturePOP                     // the key has signed the request
	KeyEncipherment                  // for keys that decrypt
	KeyAgreement                     // for keys that agree on keys
)

// String returns the name that the grammar has for p.
func (p POPMethod) String() string {
	return [...]string{"raVerified", "signature", "keyEncipherment", "keyAgreement"}[p&3]
}

// POP is a ProofOfPossession (RFC 4211 §4, RFC 9810 §5.2.8). Signature is set
// for SignaturePOP, Key for KeyEncipherment and KeyAgreement.
type POP struct {
	Method    POPMethod
	Signature *POPSignature
	Key       *POPKey
}

// POPSignature is a POPOSigningKey.
type POPSignature struct {
	Input     *POPInput // poposkInput: nil where the template has subject and key, as RFC 9483 wants it
	Algorithm Algorithm
	Signature []byte

	rawInput []byte // the poposkInput as received, under the tag of its type
}

// POPInput is a POPOSigningKeyInput. Either Sender or MAC is set.
type POPInput struct {
	Sender    GeneralName
	MAC       *MACValue // over PublicKey, with the shared secret
	PublicKey []byte    // SubjectPublicKeyInfo in DER
}

// MACValue is a PKMACValue.
type MACValue struct {
	Algorithm Algorithm
	Value     []byte
}

// POPKeyMethod is the alternative of a POPOPrivKey.
type POPKeyMethod int

// The ways to prove possession of a key that does not sign (RFC 9810 §5.2.8.3).
const (
	ThisMessage       POPKeyMethod = iota // deprecated: the private key, encrypted
	SubsequentMessage                     // proven later, see POPKey.Subsequent
	DHMAC                                 // deprecated
	AgreeMAC                              // a MAC with a key agreed upon
	EncryptedKeyPOP                       // the private key in EnvelopedData
)

// String returns the name that the grammar has for p.
func (p POPKeyMethod) String() string {
	if p < 0 || p > EncryptedKeyPOP {
		return "unknown"
	}
	return [...]string{"thisMessage", "subsequentMessage", "dhMAC", "agreeMAC", "encryptedKey"}[p]
}

// What a subsequentMessage asks for.
const (
	EncrCert      = 0 // the certificate encrypted for the key: the indirect method
	ChallengeResp = 1 // a challenge: the direct method
)

// POPKey is a POPOPrivKey.
type POPKey struct {
	Method     POPKeyMethod
	Subsequent int64  // EncrCert or ChallengeResp, for SubsequentMessage
	Value      []byte // for the others: BIT STRING, PKMACValue or EnvelopedData in DER
}

// LaterPOP asks to prove possession of a key that does not sign by what follows:
// how is EncrCert or ChallengeResp (RFC 4211 §4.2, §4.3). The template must have
// the public key, RSA or EC. It needs version 3 (see NewRequest).
func (m *CertReqMsg) LaterPOP(how int64) error {
	pub, err := x509.ParsePKIXPublicKey(m.Template.PublicKey)
	if err != nil {
		return err
	}
	p := &POP{Method: KeyAgreement, Key: &POPKey{Method: SubsequentMessage, Subsequent: how}}
	switch pub.(type) {
	case *rsa.PublicKey:
		p.Method = KeyEncipherment
	case *ecdsa.PublicKey:
	default:
		return errors.New("a key of this kind neither decrypts nor agrees on keys")
	}
	m.POP = p
	return nil
}

func readPOP(r *in, method uint8) *POP {
	p := &POP{Method: POPMethod(method)}
	switch p.Method {
	case RAVerified:
		if null := r.sub(primitive(0), "raVerified"); !null.s.Empty() {
			r.fail("raVerified")
		}
	case SignaturePOP:
		p.Signature = readPOPSignature(r)
	default:
		e := r.sub(context(method), "POPOPrivKey")
		p.Key = readPOPKey(&e)
		e.end("POPOPrivKey")
	}
	return p
}

func readPOPSignature(r *in) *POPSignature {
	s := r.sub(context(1), "POPOSigningKey")
	var v POPSignature
	if s.has(context(0)) {
		v.rawInput = s.implicit(context(0), asn1.SEQUENCE, "poposkInput")
		whole := in{v.rawInput, r.d}
		i := whole.seq("poposkInput")
		v.Input = &POPInput{}
		if i.has(context(0)) {
			e := i.sub(context(0), "sender")
			v.Input.Sender = readGeneralName(&e)
			e.end("sender")
		} else {
			v.Input.MAC = readMACValue(&i)
		}
		v.Input.PublicKey = i.element(asn1.SEQUENCE, "publicKey")
		i.end("poposkInput")
	}
	v.Algorithm = readAlgorithm(&s)
	v.Signature = s.bits("signature")
	s.end("POPOSigningKey")
	return &v
}

func readMACValue(r *in) *MACValue {
	s := r.seq("PKMACValue")
	v := &MACValue{Algorithm: readAlgorithm(&s)}
	v.Value = s.bits("value")
	s.end("PKMACValue")
	return v
}

func readPOPKey(r *in) *POPKey {
	for _, c := range []struct {
		method   POPKeyMethod
		tag, own asn1.Tag
	}{
		{ThisMessage, primitive(0), asn1.BIT_STRING},
		{SubsequentMessage, primitive(1), asn1.INTEGER},
		{DHMAC, primitive(2), asn1.BIT_STRING},
		{AgreeMAC, context(3), asn1.SEQUENCE},
		{EncryptedKeyPOP, context(4), asn1.SEQUENCE},
	} {
		if !r.has(c.tag) {
			continue
		}
		k := &POPKey{Method: c.method}
		if c.method == SubsequentMessage {
			k.Subsequent = r.taggedInt(c.tag, "subsequentMessage")
		} else {
			k.Value = r.implicit(c.tag, c.own, "POPOPrivKey")
		}
		return k
	}
	r.fail("POPOPrivKey")
	return nil
}

func addPOP(b *out, p *POP) {
	switch p.Method {
	case RAVerified:
		b.AddASN1(primitive(0), func(*out) {})
	case SignaturePOP:
		if p.Signature == nil {
			fault(b, "proof of possession without its signature")
			return
		}
		addExplicit(b, 1, func(b *out) {
			if p.Signature.Input != nil {
				b.AddASN1(context(0), func(b *out) { addPOPInput(b, p.Signature.Input) })
			}
			addAlgorithm(b, p.Signature.Algorithm)
			addBits(b, p.Signature.Signature)
		})
	case KeyEncipherment, KeyAgreement:
		if p.Key == nil {
			fault(b, "proof of possession without its key part")
			return
		}
		addExplicit(b, uint8(p.Method), func(b *out) { addPOPKey(b, p.Key) })
	default:
		fault(b, "proof of possession by method %d", int(p.Method))
	}
}

// addPOPInput adds what a POPOSigningKeyInput contains.
func addPOPInput(b *out, v *POPInput) {
	if v.MAC != nil {
		addMACValue(b, v.MAC)
	} else {
		addExplicit(b, 0, func(b *out) { addGeneralName(b, v.Sender) })
	}
	addRaw(b, v.PublicKey, "the public key in poposkInput")
}

func addMACValue(b *out, v *MACValue) {
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		addAlgorithm(b, v.Algorithm)
		addBits(b, v.Value)
	})
}

func addPOPKey(b *out, k *POPKey) {
	switch k.Method {
	case ThisMessage, DHMAC:
		addImplicit(b, primitive(uint8(k.Method)), k.Value, k.Method.String())
	case SubsequentMessage:
		b.AddASN1Int64WithTag(k.Subsequent, primitive(1))
	case AgreeMAC, EncryptedKeyPOP:
		addImplicit(b, context(uint8(k.Method)), k.Value, k.Method.String())
	default:
		fault(b, "POPOPrivKey of kind %d", int(k.Method))
	}
}
