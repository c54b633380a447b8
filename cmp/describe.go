package cmp

import (
	encasn1 "encoding/asn1"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// Describe writes all of m as indented text for people: object identifiers,
// statuses and bits by name, certificates by what they say, hex for the rest. What
// the sender has chosen is quoted or escaped, so a message cannot paint on a
// terminal. Nothing is verified.
func (m *Message) Describe(w io.Writer) error {
	p := &printer{w: w}
	p.message(m)
	return p.err
}

// printer writes indented lines and keeps the first error.
type printer struct {
	w      io.Writer
	depth  int
	nested int // messages within messages
	err    error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, strings.Repeat("  ", p.depth)+format+"\n", args...)
	}
}

// block writes a title, and what f writes further in.
func (p *printer) block(title string, f func()) {
	p.line("%s", title)
	p.depth++
	f()
	p.depth--
}

// hex writes octets: on the line of their title if they are few.
func (p *printer) hex(title string, v []byte) {
	if len(v) <= 32 {
		p.line("%s: %x", title, v)
		return
	}
	p.block(fmt.Sprintf("%s (%d octets):", title, len(v)), func() {
		for len(v) > 0 {
			n := min(32, len(v))
			p.line("%x", v[:n])
			v = v[n:]
		}
	})
}

func (p *printer) optHex(title string, v []byte) {
	if v != nil {
		p.hex(title, v)
	}
}

func (p *printer) text(title string, list []string) {
	for _, s := range list {
		p.line("%s: %+q", title, s)
	}
}

// kid writes a key identifier: as text too, where it is a reference.
func (p *printer) kid(title string, v []byte) {
	if v == nil {
		return
	}
	if len(v) == 0 || slices.ContainsFunc(v, func(c byte) bool { return c < 0x20 || c > 0x7e }) {
		p.hex(title, v)
		return
	}
	p.line("%s: %x %q", title, v, v)
}

func (p *printer) message(m *Message) {
	p.block("header", func() { p.header(&m.Header) })
	if m.Body != nil {
		p.block("body "+m.Body.Type().String(), func() { p.body(m.Body) })
	}
	if m.Protection == nil {
		p.line("protection: none")
	} else {
		p.hex("protection", m.Protection)
	}
	for i, c := range m.ExtraCerts {
		p.cert(fmt.Sprintf("extraCerts[%d]", i), c)
	}
	if m.emptyExtraCerts {
		p.line("extraCerts: an empty list")
	}
}

func (p *printer) header(h *Header) {
	p.line("pvno: %d", h.Version)
	p.line("sender: %s", h.Sender)
	p.line("recipient: %s", h.Recipient)
	if !h.Time.IsZero() {
		p.line("messageTime: %s", h.Time.Format(time.RFC3339))
	}
	if h.ProtectionAlg.Present() {
		p.algorithm("protectionAlg", h.ProtectionAlg)
	}
	p.kid("senderKID", h.SenderKID)
	p.kid("recipKID", h.RecipKID)
	p.optHex("transactionID", h.TransactionID)
	p.optHex("senderNonce", h.SenderNonce)
	p.optHex("recipNonce", h.RecipNonce)
	p.text("freeText", h.FreeText)
	if len(h.GeneralInfo) > 0 {
		p.block("generalInfo", func() { p.infos(h.GeneralInfo) })
	}
}

func (p *printer) algorithm(title string, a Algorithm) {
	p.line("%s: %s%s", title, oidName(a.OID), p.params(a))
}

// params explains the parameters of an algorithm.
func (p *printer) params(a Algorithm) string {
	if a.Params == nil {
		return ""
	}
	if a.plain() {
		return ", NULL"
	}
	if a.OID.Equal(oidPBM) || a.OID.Equal(oidPBMAC1) {
		// Any count is worth showing, for nothing is computed.
		anything := MACPolicy{MinIterations: 1, MaxWork: math.MaxInt64}
		if m, err := anything.ParseMACParams(a); err == nil {
			return fmt.Sprintf(", %s, %d iterations, HMAC with %s, salt %x", m.OWF, m.Iterations, m.MAC, m.Salt)
		}
	}
	if a.OID.Equal(oidPSS) {
		if s, err := pssOf(a); err == nil {
			return fmt.Sprintf(", %s, salt of %d octets", s.hash, s.salt)
		}
	}
	if oid, err := parseValue(a.Params, "parameters", func(r *in) encasn1.ObjectIdentifier { return r.oid("parameters") }); err == nil {
		return ", " + oidName(oid)
	}
	return fmt.Sprintf(", parameters %x", a.Params)
}

func (p *printer) status(title string, s StatusInfo) {
	p.line("%s: %s", title, s.Status)
	p.depth++
	p.text("statusString", s.Text)
	if s.FailInfo != 0 {
		p.line("failInfo: %s", s.FailInfo)
	} else if s.emptyFailInfo {
		p.line("failInfo: no bits")
	}
	p.depth--
}

// maxDescribed bounds messages in messages in the output; the decoder has bounded
// those in bodies already.
const maxDescribed = 4

func (p *printer) within(title string, list []*Message) {
	if p.nested == maxDescribed {
		p.line("%s: nested too deeply to show", title)
		return
	}
	p.nested++
	for i, m := range list {
		p.block(fmt.Sprintf("%s[%d]", title, i), func() { p.message(m) })
	}
	p.nested--
}
