package cmp

import (
	encasn1 "encoding/asn1"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// recipientKinds are the alternatives of RecipientInfo (RFC 5652 §6.2).
var recipientKinds = map[asn1.Tag]string{
	asn1.SEQUENCE: "key transport", context(1): "key agreement", context(2): "key encryption key", context(3): "password", context(4): "another technique",
}

// envelopeSummary is what EnvelopedData says without a key.
type envelopeSummary struct {
	version    int64
	recipients []envelopeRecipient
	content    encasn1.ObjectIdentifier
	cipher     Algorithm
	size       int
}

type envelopeRecipient struct {
	kind string
	alg  Algorithm // how the content's key is encrypted; absent where it is not looked for
}

// enveloped prints who can open an EnvelopedData, and what is in it.
func (p *printer) enveloped(title string, raw []byte) {
	e, err := parseValue(raw, "EnvelopedData", readEnvelopeSummary)
	if err != nil {
		p.hex(title+": EnvelopedData", raw)
		return
	}
	p.block(title+": EnvelopedData", func() {
		p.line("version: %d", e.version)
		for _, r := range e.recipients {
			p.line("recipient: by %s", r.kind)
			if r.alg.Present() {
				p.algorithm("  algorithm", r.alg)
			}
		}
		p.line("content: %s, %d octets encrypted", oidName(e.content), e.size)
		p.algorithm("cipher", e.cipher)
	})
}

func readEnvelopeSummary(r *in) envelopeSummary {
	s := r.seq("EnvelopedData")
	e := envelopeSummary{version: s.int("version")}
	if s.has(context(0)) {
		s.element(context(0), "originatorInfo")
	}
	infos := s.sub(asn1.SET, "recipientInfos")
	e.recipients = readAll(&infos, "recipientInfos", readEnvelopeRecipient)
	c := s.seq("encryptedContentInfo")
	e.content = c.oid("contentType")
	e.cipher = readAlgorithm(&c)
	if c.has(primitive(0)) {
		octets := c.sub(primitive(0), "encryptedContent")
		e.size = len(octets.s)
	}
	c.end("encryptedContentInfo")
	if s.has(context(1)) {
		s.element(context(1), "unprotectedAttrs")
	}
	s.end("EnvelopedData")
	return e
}

func readEnvelopeRecipient(r *in) envelopeRecipient {
	for tag, kind := range recipientKinds {
		if !r.has(tag) {
			continue
		}
		out := envelopeRecipient{kind: kind}
		s := r.sub(tag, "RecipientInfo")
		s.int("version")
		switch tag {
		case asn1.SEQUENCE:
			s.anyElement("rid")
			out.alg = readAlgorithm(&s)
		case context(1):
			s.anyElement("originator")
			if s.has(context(1)) {
				s.element(context(1), "ukm")
			}
			out.alg = readAlgorithm(&s)
		case context(3):
			if s.has(context(0)) {
				s.element(context(0), "keyDerivationAlgorithm")
			}
			out.alg = readAlgorithm(&s)
		}
		return out
	}
	r.fail("RecipientInfo")
	return envelopeRecipient{}
}
