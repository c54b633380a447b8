package cmp

import (
	"bytes"
	"crypto"
	"crypto/subtle"
	"crypto/x509"
	"errors"

	"golang.org/x/crypto/cryptobyte/asn1"
)

const popSection = "RFC 4211 §4.1"

// SignPOP adds the proof of possession of a signature key (RFC 4211 §4.1). The
// template must have the public key of signer; it is put there if there is none.
// Where the template has no subject, poposkInput names auth: the sender, as
// authenticated, or a shared secret; pass the zero value where there is a subject.
// The request must not be changed any more.
func (m *CertReqMsg) SignPOP(signer crypto.Signer, auth POPAuth) error {
	if m.Template.PublicKey == nil {
		spki, err := x509.MarshalPKIXPublicKey(signer.Public())
		if err != nil {
			return err
		}
		m.Template.PublicKey = spki
	}
	sig, alg, err := signatureFor(signer.Public(), false)
	if err != nil {
		return err
	}
	if m.raw, err = encode(512, func(b *out) { addCertRequest(b, m) }); err != nil {
		return err
	}
	pop := &POPSignature{Algorithm: alg}
	signed := m.raw
	if m.Template.Subject == nil {
		if pop.Input, err = auth.input(m.Template.PublicKey); err != nil {
			return err
		}
		pop.rawInput, err = encode(256, func(b *out) {
			b.AddASN1(asn1.SEQUENCE, func(b *out) { addPOPInput(b, pop.Input) })
		})
		if err != nil {
			return err
		}
		signed = pop.rawInput
	}
	if pop.Signature, err = sig.sign(signer, signed); err != nil {
		return err
	}
	m.POP = &POP{Method: SignaturePOP, Signature: pop}
	return nil
}

// POPAuth says who is behind a poposkInput. Either field is set.
type POPAuth struct {
	Sender GeneralName // the authenticated sender
	MAC    *MAC        // made by NewMAC with PBM; in checks, Secret is used instead
}

func (a POPAuth) input(spki []byte) (*POPInput, error) {
	v := &POPInput{Sender: a.Sender, PublicKey: spki}
	switch {
	case a.MAC != nil:
		v.MAC = &MACValue{Algorithm: a.MAC.alg, Value: a.MAC.sum(spki)}
	case a.Sender == nil:
		return nil, errors.New("a template without subject needs a sender or a secret for its proof of possession")
	}
	return v, nil
}

// POPRules say whom a poposkInput may name.
type POPRules struct {
	Sender GeneralName // authenticated by the protection; nil if none was
	Secret []byte      // shared with the requester; nil if none
	MAC    MACPolicy
}

// VerifyPOP checks the proof of possession by signature against the public key of
// the template. What the methods raVerified, keyEncipherment and keyAgreement
// need, and an absent proof, is the caller's: they are refused here. Errors carry
// badPOP (also where no key of its kind signs with this algorithm), badAlg for an
// algorithm that is not accepted, or badCertTemplate where there is no usable key.
//
// A template without subject must have a poposkInput (RFC 4211 §4.1). OpenSSL
// signs the request instead when it asks for alternative names only; that covers
// the key and all names too, and is accepted.
func (m *CertReqMsg) VerifyPOP(rules POPRules) error {
	if m.POP == nil || m.POP.Method != SignaturePOP || m.POP.Signature == nil {
		return refuse(BadPOP, popSection, "there is no proof of possession by signature")
	}
	v := m.POP.Signature
	if m.raw == nil {
		return refuse(BadPOP, popSection, "the request was neither parsed nor signed")
	}
	signed, spki := m.raw, m.Template.PublicKey
	if v.Input != nil {
		if m.Template.Subject != nil && m.Template.PublicKey != nil {
			return refuse(BadPOP, popSection, "poposkInput beside subject and public key")
		}
		if spki != nil && !bytes.Equal(spki, v.Input.PublicKey) {
			return refuse(BadPOP, popSection, "poposkInput is about another public key")
		}
		if err := v.Input.check(rules); err != nil {
			return err
		}
		signed, spki = v.rawInput, v.Input.PublicKey
	}
	if spki == nil {
		return refuse(BadCertTemplate, popSection, "the template has no public key")
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return &Error{Info: BadCertTemplate, Section: popSection, Reason: "the public key cannot be read", Err: err}
	}
	sig, err := signatureOf(v.Algorithm)
	if err != nil {
		return err
	}
	if err := sig.verify(pub, signed, v.Signature); errors.Is(err, errSignature) {
		return refuse(BadPOP, popSection, "the proof of possession does not verify")
	} else if errors.Is(err, errUnfit) {
		return refuse(BadPOP, "RFC 9483 §4.1.1", "the proof of possession is signed with %s, which is no algorithm of the key in the template", oidName(v.Algorithm.OID))
	} else if err != nil {
		return err
	}
	return nil
}

func (v *POPInput) check(rules POPRules) error {
	if v.MAC == nil {
		want, ok1 := rules.Sender.Directory()
		have, ok2 := v.Sender.Directory()
		if !ok1 || !ok2 || rules.Sender.IsNull() || !SameName(want, have) {
			return refuse(BadPOP, popSection, "poposkInput names another sender than the authenticated one")
		}
		return nil
	}
	if rules.Secret == nil {
		return refuse(BadPOP, popSection, "poposkInput has a MAC, and there is no shared secret")
	}
	p, err := rules.MAC.ParseMACParams(v.MAC.Algorithm)
	if err != nil {
		return err
	}
	key, err := rules.MAC.derive(p, rules.Secret)
	if err != nil {
		return err
	}
	k := MAC{hash: p.MAC, key: key}
	if subtle.ConstantTimeCompare(k.sum(v.PublicKey), v.MAC.Value) != 1 {
		return refuse(BadPOP, popSection, "the MAC in poposkInput does not verify")
	}
	return nil
}
