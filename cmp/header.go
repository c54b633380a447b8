package cmp

import (
	"time"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// Versions of the protocol (RFC 9810 §7).
const (
	CMP2000 = 2 // for all that does not need 3
	CMP2021 = 3 // for EnvelopedData, and for hashAlg in certConf
)

//	PKIHeader ::= SEQUENCE {
//	    pvno                INTEGER,
//	    sender              GeneralName,
//	    recipient           GeneralName,
//	    messageTime     [0] GeneralizedTime         OPTIONAL,
//	    protectionAlg   [1] AlgorithmIdentifier     OPTIONAL,
//	    senderKID       [2] KeyIdentifier           OPTIONAL,
//	    recipKID        [3] KeyIdentifier           OPTIONAL,
//	    transactionID   [4] OCTET STRING            OPTIONAL,
//	    senderNonce     [5] OCTET STRING            OPTIONAL,
//	    recipNonce      [6] OCTET STRING            OPTIONAL,
//	    freeText        [7] PKIFreeText             OPTIONAL,
//	    generalInfo     [8] SEQUENCE SIZE (1..MAX) OF InfoTypeAndValue OPTIONAL }

// Header is a PKIHeader (RFC 9810 §5.1.1, RFC 9483 §3.1). Octet strings are nil
// when absent.
type Header struct {
	Version       int         // pvno
	Sender        GeneralName // nil is written as the NULL-DN
	Recipient     GeneralName // nil is written as the NULL-DN
	Time          time.Time   // messageTime, in nanoseconds; zero when absent. NewRequest and Reply write whole seconds
	ProtectionAlg Algorithm   // set by Protect
	SenderKID     []byte
	RecipKID      []byte
	TransactionID []byte
	SenderNonce   []byte
	RecipNonce    []byte
	FreeText      []string
	GeneralInfo   Infos
}

func readHeader(r *in) Header {
	s := r.seq("PKIHeader")
	var h Header
	v := s.int("pvno")
	if v < 0 || v > 1<<16 {
		s.fail("pvno")
	}
	h.Version = int(v)
	h.Sender = readGeneralName(&s)
	h.Recipient = readGeneralName(&s)
	if s.has(context(0)) {
		e := s.sub(context(0), "messageTime")
		h.Time = e.time("messageTime")
		e.end("messageTime")
	}
	if s.has(context(1)) {
		e := s.sub(context(1), "protectionAlg")
		h.ProtectionAlg = readAlgorithm(&e)
		e.end("protectionAlg")
	}
	h.SenderKID = s.optOctets(2, "senderKID")
	h.RecipKID = s.optOctets(3, "recipKID")
	h.TransactionID = s.optOctets(4, "transactionID")
	h.SenderNonce = s.optOctets(5, "senderNonce")
	h.RecipNonce = s.optOctets(6, "recipNonce")
	if s.has(context(7)) {
		e := s.sub(context(7), "freeText")
		h.FreeText = readFreeText(&e)
		e.end("freeText")
	}
	if s.has(context(8)) {
		e := s.sub(context(8), "generalInfo")
		h.GeneralInfo = oneOrMore(&e, "generalInfo", readInfo)
		e.end("generalInfo")
	}
	s.end("PKIHeader")
	return h
}

// optOctets reads [n] EXPLICIT OCTET STRING OPTIONAL.
func (r *in) optOctets(n uint8, what string) []byte {
	if !r.has(context(n)) {
		return nil
	}
	e := r.sub(context(n), what)
	v := e.octets(what)
	e.end(what)
	return v
}

func addHeader(b *out, h *Header) {
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		b.AddASN1Int64(int64(h.Version))
		addGeneralName(b, h.Sender)
		addGeneralName(b, h.Recipient)
		if !h.Time.IsZero() {
			addExplicit(b, 0, func(b *out) { addTime(b, h.Time) })
		}
		if h.ProtectionAlg.Present() {
			addExplicit(b, 1, func(b *out) { addAlgorithm(b, h.ProtectionAlg) })
		}
		addOctets(b, 2, h.SenderKID)
		addOctets(b, 3, h.RecipKID)
		addOctets(b, 4, h.TransactionID)
		addOctets(b, 5, h.SenderNonce)
		addOctets(b, 6, h.RecipNonce)
		if len(h.FreeText) > 0 {
			addExplicit(b, 7, func(b *out) { addFreeText(b, h.FreeText) })
		}
		if len(h.GeneralInfo) > 0 {
			addExplicit(b, 8, func(b *out) { addList(b, h.GeneralInfo, addInfo) })
		}
	})
}
