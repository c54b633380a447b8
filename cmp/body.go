package cmp

import (
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// BodyType is the tag of a PKIBody (RFC 9810 §5.1.2).
type BodyType int

// The alternatives of PKIBody.
const (
	IR BodyType = iota
	IP
	CR
	CP
	P10CR
	POPDecC
	POPDecR
	KUR
	KUP
	KRR
	KRP
	RR
	RP
	CCR
	CCP
	CKUAnn
	CAnn
	RAnn
	CRLAnn
	PKIConf
	Nested
	GenM
	GenP
	ErrorMsg
	CertConf
	PollReq
	PollRep
)

var bodyNames = []string{"ir", "ip", "cr", "cp", "p10cr", "popdecc", "popdecr", "kur", "kup", "krr", "krp", "rr", "rp",
	"ccr", "ccp", "ckuann", "cann", "rann", "crlann", "pkiconf", "nested", "genm", "genp", "error", "certConf",
	"pollReq", "pollRep"}

// String returns the name that the grammar has for t.
func (t BodyType) String() string {
	if t >= 0 && int(t) < len(bodyNames) {
		return bodyNames[t]
	}
	return fmt.Sprintf("body %d", int(t))
}

// Reply returns the body type that answers a certificate request, rr, genm,
// certConf, nested or pollReq in the good case; ErrorMsg for what has no answer.
func (t BodyType) Reply() BodyType {
	switch t {
	case IR:
		return IP
	case CR, P10CR:
		return CP
	case KUR:
		return KUP
	case KRR:
		return KRP
	case CCR:
		return CCP
	case RR:
		return RP
	case GenM:
		return GenP
	case CertConf:
		return PKIConf
	case Nested:
		return Nested
	case PollReq:
		return PollRep
	case POPDecC:
		return POPDecR
	}
	return ErrorMsg
}

// Body is one of *CertRequests, *CertResponses, *PKCS10, *Challenges,
// *ChallengeAnswers, *Revocations, *RevocationResults, *Confirm, *NestedMessages,
// *General, *ErrorBody, *Confirmations, *PollRequests, *PollReplies and *OpaqueBody.
type Body interface {
	// Type returns the alternative that the body is.
	Type() BodyType
	add(*out)
}

// PKCS10 is the body of p10cr: one CertificationRequest (RFC 2986) in DER, passed
// on as it is.
type PKCS10 struct{ Request []byte }

// Confirm is the body of pkiconf: NULL.
type Confirm struct{}

// NestedMessages is the body of nested: messages to which someone adds protection
// (RFC 9483 §5.2.2), at least one.
type NestedMessages struct{ Messages []*Message }

// General is the body of genm, or of genp if Response is set (RFC 9810 §5.3.19).
type General struct {
	Response bool
	Infos    Infos
}

// ErrorBody is the body of error (RFC 9810 §5.3.21, RFC 9483 §3.6.4).
type ErrorBody struct {
	Status  StatusInfo
	Code    *big.Int // errorCode, whose meaning is the sender's; nil when absent
	Details []string // errorDetails; nil when absent
}

// PollRequests is the body of pollReq: the certReqIds asked about (RFC 9810 §5.3.22).
type PollRequests struct{ CertReqIDs []int64 }

// PollReplies is the body of pollRep.
type PollReplies struct{ Replies []PollReply }

// PollReply says when to ask again.
type PollReply struct {
	CertReqID  int64
	CheckAfter time.Duration // whole seconds
	Reason     []string
}

// OpaqueBody is a body of the types krp, ckuann, cann, rann or crlann, none of
// which the Lightweight Profile uses: well-formed DER, kept as it is.
type OpaqueBody struct {
	Of      BodyType
	Content []byte // one element
}

// Type implements Body.
func (*PKCS10) Type() BodyType { return P10CR }

// Type implements Body.
func (*Confirm) Type() BodyType { return PKIConf }

// Type implements Body.
func (*NestedMessages) Type() BodyType { return Nested }

// Type implements Body.
func (g *General) Type() BodyType {
	if g.Response {
		return GenP
	}
	return GenM
}

// Type implements Body.
func (*ErrorBody) Type() BodyType { return ErrorMsg }

// Type implements Body.
func (*PollRequests) Type() BodyType { return PollReq }

// Type implements Body.
func (*PollReplies) Type() BodyType { return PollRep }

// Type implements Body.
func (o *OpaqueBody) Type() BodyType { return o.Of }

func readBody(r *in) Body {
	for t := IR; t <= PollRep; t++ {
		if r.has(context(uint8(t))) {
			s := r.sub(context(uint8(t)), "PKIBody")
			b := readContent(&s, t)
			s.end("PKIBody")
			return b
		}
	}
	r.fail("PKIBody")
	return nil
}

func readContent(r *in, t BodyType) Body {
	switch t {
	case IR, CR, KUR, KRR, CCR:
		return &CertRequests{Of: t, Requests: oneOrMore(r, "CertReqMessages", readCertReqMsg)}
	case IP, CP, KUP, CCP:
		return readCertResponses(r, t)
	case P10CR:
		return &PKCS10{Request: r.element(asn1.SEQUENCE, "CertificationRequest")}
	case POPDecC:
		return &Challenges{List: anyNumber(r, "POPODecKeyChallContent", readChallenge)}
	case POPDecR:
		return &ChallengeAnswers{List: anyNumber(r, "POPODecKeyRespContent", func(r *in) *big.Int { return r.bigInt("answer") })}
	case RR:
		return &Revocations{List: anyNumber(r, "RevReqContent", readRevocation)}
	case RP:
		return readRevocationResults(r)
	case PKIConf:
		if null := r.sub(asn1.NULL, "PKIConfirmContent"); !null.s.Empty() {
			r.fail("PKIConfirmContent")
		}
		return &Confirm{}
	case Nested:
		return readNested(r)
	case GenM, GenP:
		return &General{Response: t == GenP, Infos: anyNumber(r, "GenMsgContent", readInfo)}
	case ErrorMsg:
		return readError(r)
	case CertConf:
		return &Confirmations{List: anyNumber(r, "CertConfirmContent", readCertStatus)}
	case PollReq:
		return &PollRequests{CertReqIDs: anyNumber(r, "PollReqContent", func(r *in) int64 {
			s := r.seq("PollReqContent")
			id := s.int("certReqId")
			s.end("PollReqContent")
			return id
		})}
	case PollRep:
		return &PollReplies{Replies: anyNumber(r, "PollRepContent", readPollReply)}
	default:
		return &OpaqueBody{Of: t, Content: r.anyElement("PKIBody")}
	}
}

// readNested counts levels, so that depth is refused before it is built.
func readNested(r *in) Body {
	if r.d.nesting == r.d.limits.Nesting {
		r.d.fail("messages are nested deeper than %d", r.d.limits.Nesting)
		r.s = nil
		return &NestedMessages{}
	}
	r.d.nesting++
	defer func() { r.d.nesting-- }()
	return &NestedMessages{Messages: oneOrMore(r, "PKIMessages", readMessage)}
}

func addBody(b *out, body Body) {
	if body == nil {
		b.SetError(errNoBody)
		return
	}
	addExplicit(b, uint8(body.Type()), body.add)
}

func (p *PKCS10) add(b *out) { addRaw(b, p.Request, "the PKCS#10 request") }

func (*Confirm) add(b *out) { b.AddASN1NULL() }

func (n *NestedMessages) add(b *out) {
	if len(n.Messages) == 0 {
		fault(b, "a nested message needs messages")
	}
	addList(b, n.Messages, addMessage)
}

func (g *General) add(b *out) { addList(b, g.Infos, addInfo) }

func (o *OpaqueBody) add(b *out) { addRaw(b, o.Content, o.Of.String()) }

//	ErrorMsgContent ::= SEQUENCE {
//	    pKIStatusInfo          PKIStatusInfo,
//	    errorCode              INTEGER           OPTIONAL,
//	    errorDetails           PKIFreeText       OPTIONAL }

func readError(r *in) Body {
	s := r.seq("ErrorMsgContent")
	e := &ErrorBody{Status: readStatusInfo(&s)}
	if s.has(asn1.INTEGER) {
		e.Code = s.bigInt("errorCode")
	}
	if s.has(asn1.SEQUENCE) {
		e.Details = readFreeText(&s)
	}
	s.end("ErrorMsgContent")
	return e
}

func (e *ErrorBody) add(b *out) {
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		addStatusInfo(b, e.Status)
		if e.Code != nil {
			b.AddASN1BigInt(e.Code)
		}
		if len(e.Details) > 0 {
			addFreeText(b, e.Details)
		}
	})
}

func (p *PollRequests) add(b *out) {
	addList(b, p.CertReqIDs, func(b *out, id int64) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) { b.AddASN1Int64(id) })
	})
}

//	PollRepContent ::= SEQUENCE OF SEQUENCE {
//	    certReqId              INTEGER,
//	    checkAfter             INTEGER,  -- time in seconds
//	    reason                 PKIFreeText OPTIONAL }

func readPollReply(r *in) PollReply {
	s := r.seq("PollRepContent")
	v := PollReply{CertReqID: s.int("certReqId")}
	seconds := s.int("checkAfter")
	// A century is more than anyone means, and keeps Duration from overflowing.
	if seconds < 0 || seconds > 100*366*24*3600 {
		s.fail("checkAfter")
		seconds = 0
	}
	v.CheckAfter = time.Duration(seconds) * time.Second
	if s.has(asn1.SEQUENCE) {
		v.Reason = readFreeText(&s)
	}
	s.end("PollRepContent")
	return v
}

func (p *PollReplies) add(b *out) {
	addList(b, p.Replies, func(b *out, v PollReply) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			b.AddASN1Int64(v.CertReqID)
			b.AddASN1Int64(int64(v.CheckAfter / time.Second))
			if len(v.Reason) > 0 {
				addFreeText(b, v.Reason)
			}
		})
	})
}
