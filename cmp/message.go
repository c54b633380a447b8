package cmp

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// Limits bound what Parse accepts. Zero fields take their defaults, which suit a
// server that strangers can reach.
type Limits struct {
	Size    int // octets of one message; default 1 MiB
	Items   int // items of each list in it: requests, certificates, generalInfo, …; default 512
	Nesting int // levels of nested messages within the outermost; default 2
}

func (l Limits) withDefaults() Limits {
	return Limits{Size: orDefault(l.Size, 1<<20), Items: orDefault(l.Items, 512), Nesting: orDefault(l.Nesting, 2)}
}

//	PKIMessage ::= SEQUENCE {
//	    header           PKIHeader,
//	    body             PKIBody,
//	    protection   [0] PKIProtection OPTIONAL,      -- BIT STRING
//	    extraCerts   [1] SEQUENCE SIZE (1..MAX) OF CMPCertificate OPTIONAL }
//	ProtectedPart ::= SEQUENCE { header PKIHeader, body PKIBody }

// Message is a PKIMessage (RFC 9810 §5.1).
//
// A parsed message shares memory with the octets it came from, and remembers
// header and body as they were received: verification speaks of those octets, so
// verify before changing any field. Marshal always writes the fields; for an
// unchanged message they give the same octets again.
type Message struct {
	Header     Header
	Body       Body
	Protection []byte   // MAC or signature; nil when absent
	ExtraCerts [][]byte // certificates in DER; nil when absent

	raw       []byte // the whole message as it was parsed or protected
	protected []byte // header ‖ body, the content of the ProtectedPart

	// emptyExtraCerts: an empty list breaks SIZE (1..MAX), but older OpenSSL sends it.
	emptyExtraCerts bool
}

// Parse decodes one message within the default [Limits]. Every error is an [Error].
func Parse(msg []byte) (*Message, error) { return Limits{}.Parse(msg) }

// Parse decodes one message: DER only, nothing after it, every element within
// the limits. Whether it is protected, and by whom, is for Verify to say.
func (l Limits) Parse(msg []byte) (*Message, error) {
	l = l.withDefaults()
	if len(msg) > l.Size {
		return nil, refuse(BadDataFormat, generic, "the message has %d octets, more than %d", len(msg), l.Size)
	}
	if err := der.Check(msg, maxDepth); err != nil {
		return nil, malformed("the message", err)
	}
	d := &decoder{limits: l}
	r := in{msg, d}
	m := readMessage(&r)
	r.end("PKIMessage")
	if d.err != nil {
		return nil, d.err
	}
	return m, nil
}

func orDefault(v, d int) int {
	if v > 0 {
		return v
	}
	return d
}

func readMessage(r *in) *Message {
	m := &Message{raw: r.element(asn1.SEQUENCE, "PKIMessage")}
	whole := in{m.raw, r.d}
	s := whole.seq("PKIMessage")
	start := s.s
	m.Header = readHeader(&s)
	m.Body = readBody(&s)
	if r.d.err != nil {
		return m
	}
	m.protected = slices.Clip(start[:len(start)-len(s.s)])
	if s.has(context(0)) {
		e := s.sub(context(0), "protection")
		m.Protection = e.bits("protection")
		e.end("protection")
	}
	if s.has(context(1)) {
		e := s.sub(context(1), "extraCerts")
		m.ExtraCerts = anyNumber(&e, "extraCerts", readCert)
		e.end("extraCerts")
		if len(m.ExtraCerts) == 0 {
			m.ExtraCerts, m.emptyExtraCerts = nil, true
		}
	}
	s.end("PKIMessage")
	return m
}

// Raw returns the octets that the message was parsed from, or that Protect made;
// nil for a message that was neither parsed nor protected.
func (m *Message) Raw() []byte { return m.raw }

// Marshal encodes the fields of m.
func (m *Message) Marshal() ([]byte, error) {
	return encode(max(1024, len(m.raw)), func(b *out) { addMessage(b, m) })
}

func addMessage(b *out, m *Message) {
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		addHeader(b, &m.Header)
		addBody(b, m.Body)
		addTail(b, m)
	})
}

func addTail(b *out, m *Message) {
	if m.Protection != nil {
		addExplicit(b, 0, func(b *out) { addBits(b, m.Protection) })
	}
	if len(m.ExtraCerts) > 0 || m.emptyExtraCerts {
		addExplicit(b, 1, func(b *out) { addCerts(b, m.ExtraCerts) })
	}
}

// seal encodes header and body once, has sign make the protection over the
// ProtectedPart, and keeps what was made.
func (m *Message) seal(sign func(protectedPart []byte) ([]byte, error)) error {
	part, err := encode(1024, func(b *out) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			addHeader(b, &m.Header)
			addBody(b, m.Body)
		})
	})
	if err != nil {
		return err
	}
	if m.Protection, err = sign(part); err != nil {
		return err
	}
	s := cryptobyte.String(part)
	var content cryptobyte.String
	s.ReadASN1(&content, asn1.SEQUENCE)
	m.protected = content
	m.raw, err = encode(len(part)+512, func(b *out) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			b.AddBytes(m.protected)
			addTail(b, m)
		})
	})
	return err
}

// protectedPart returns the DER of ProtectedPart over the octets received, which
// are not encoded anew: what a peer protected is what it sent.
func (m *Message) protectedPart() ([]byte, error) {
	if m.protected == nil {
		return nil, refuse(BadMessageCheck, generic, "the message was neither parsed nor protected")
	}
	return encode(len(m.protected)+8, func(b *out) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) { b.AddBytes(m.protected) })
	})
}
