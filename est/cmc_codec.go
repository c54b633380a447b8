package est

import (
	encasn1 "encoding/asn1"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/cms"
	"github.com/deviceca/deviceca/internal/der"
)

// What a Full PKI Request holds, in SignedData (RFC 5272 §3.2.1), and what it is answered with (§4.2.1):
//
//	PKIData ::= SEQUENCE {
//	    controlSequence  SEQUENCE OF TaggedAttribute,
//	    reqSequence      SEQUENCE OF TaggedRequest,
//	    cmsSequence      SEQUENCE OF TaggedContentInfo,
//	    otherMsgSequence SEQUENCE OF OtherMsg }
//
//	TaggedAttribute ::= SEQUENCE { bodyPartID INTEGER (0..4294967295), attrType OBJECT IDENTIFIER, attrValues SET OF ANY }
//
//	TaggedRequest ::= CHOICE {
//	    tcr [0] IMPLICIT SEQUENCE { bodyPartID INTEGER, certificationRequest CertificationRequest },
//	    crm [1] IMPLICIT CertReqMsg,
//	    orm [2] IMPLICIT SEQUENCE { bodyPartID INTEGER, requestMessageType OBJECT IDENTIFIER, requestMessageValue ANY } }
//
//	PKIResponse ::= SEQUENCE { controlSequence, cmsSequence, otherMsgSequence }  -- as in PKIData
//
//	CMCStatusInfoV2 ::= SEQUENCE {
//	    cMCStatus INTEGER, bodyList SEQUENCE OF BodyPartReference,               -- here always a bodyPartID
//	    statusString UTF8String OPTIONAL, otherInfo CHOICE { failInfo INTEGER, … } OPTIONAL }
var (
	typePKIData     = cms.OID{1, 3, 6, 1, 5, 5, 7, 12, 2}
	typePKIResponse = cms.OID{1, 3, 6, 1, 5, 5, 7, 12, 3}
)

func oidCMC(n int) encasn1.ObjectIdentifier {
	return encasn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 7, n}
}

// The controls that are read or written, by the last arc of id-cmc.
const (
	cmcIdentification   = 2
	cmcTransactionID    = 5
	cmcSenderNonce      = 6
	cmcRecipientNonce   = 7
	cmcPOPLinkRandom    = 22
	cmcStatusInfoV2     = 25
	cmcPOPLinkWitnessV2 = 33 // in the request's attributes or CRMF controls
	cmcIdentityProofV2  = 34
)

// CMCStatus and CMCFailInfo (RFC 5272 §6.1.3, §6.1.4).
const (
	statusSuccess   = 0
	statusFailed    = 2
	statusNoSupport = 4

	failBadAlg          = 0
	failBadMessageCheck = 1
	failBadRequest      = 2
	failBadIdentity     = 7
	failPOPFailed       = 9
	failInternal        = 11
	failTryLater        = 12
)

// Bounds of a request.
const (
	maxControls = 32
	maxNonce    = 1 << 10 // octets, also of a transaction identifier
	maxCMCDepth = 32
)

// fault is what is wrong with a Full PKI Request, in CMC's terms.
type fault struct {
	status int
	fail   int
	parts  []uint32 // body parts at fault; none: the PKIData itself
	says   string
	err    error // for the log
}

func (f *fault) Error() string {
	if f.err != nil {
		return "fullcmc: " + f.says + ": " + f.err.Error()
	}
	return "fullcmc: " + f.says
}

func (f *fault) Unwrap() error { return f.err }

func badRequest(says string, parts ...uint32) *fault {
	return &fault{status: statusFailed, fail: failBadRequest, parts: parts, says: says}
}

// pkiData is a PKIData with one request.
type pkiData struct {
	controls    map[int]control // known ones
	reqSequence []byte          // as it stands, for the identity proof
	part        uint32          // the request's body part
	pkcs10      []byte          // one of both
	crmf        []byte          // content of CertReqMsg
}

type control struct {
	part  uint32
	value cryptobyte.String // DER of its one value
}

// parsePKIData reads what is in the SignedData. Errors are faults.
func parsePKIData(in []byte) (*pkiData, error) {
	if err := der.Check(in, maxCMCDepth); err != nil {
		return nil, &fault{status: statusFailed, fail: failBadRequest, says: "PKIData is not DER", err: err}
	}
	body, err := der.Whole(in, asn1.SEQUENCE)
	if err != nil {
		return nil, &fault{status: statusFailed, fail: failBadRequest, says: "PKIData is not a SEQUENCE", err: err}
	}
	d := &pkiData{controls: map[int]control{}}
	var controls, requests, reqs, messages, others cryptobyte.String
	if !body.ReadASN1(&controls, asn1.SEQUENCE) || !body.ReadASN1Element(&requests, asn1.SEQUENCE) ||
		!body.ReadASN1(&messages, asn1.SEQUENCE) || !body.ReadASN1(&others, asn1.SEQUENCE) || !body.Empty() {
		return nil, badRequest("PKIData is not as RFC 5272 §3.2.1 has it")
	}
	if !messages.Empty() || !others.Empty() {
		return nil, badRequest("nested messages are not taken: send one request")
	}
	d.reqSequence = slices.Clone(requests)
	if err := d.readControls(controls); err != nil {
		return nil, err
	}
	requests.ReadASN1(&reqs, asn1.SEQUENCE)
	return d, d.readRequest(reqs)
}

func (d *pkiData) readControls(controls cryptobyte.String) error {
	known := []int{cmcIdentification, cmcTransactionID, cmcSenderNonce, cmcPOPLinkRandom, cmcIdentityProofV2}
	var parts, unknown []uint32
	for !controls.Empty() {
		var one, values, value cryptobyte.String
		var part uint32
		var oid encasn1.ObjectIdentifier
		var tag asn1.Tag
		if !controls.ReadASN1(&one, asn1.SEQUENCE) || !one.ReadASN1Integer(&part) || !one.ReadASN1ObjectIdentifier(&oid) ||
			!one.ReadASN1(&values, asn1.SET) || !one.Empty() {
			return badRequest("a control is not as RFC 5272 §3.2.1.1 has it")
		}
		if part == 0 || slices.Contains(parts, part) || len(parts) == maxControls {
			return badRequest("a body part identifier is 0 or comes twice, or there are more than 32 controls", part)
		}
		parts = append(parts, part)
		number := oid[len(oid)-1]
		if !slices.Contains(known, number) || !oid.Equal(oidCMC(number)) {
			unknown = append(unknown, part)
			continue
		}
		if _, twice := d.controls[number]; twice || !values.ReadAnyASN1Element(&value, &tag) || !values.Empty() {
			return badRequest("a control comes twice, or has not one value", part)
		}
		d.controls[number] = control{part, value}
	}
	if len(unknown) > 0 { // RFC 5272 §3.2.1.1: the whole request fails
		return badRequest("a control is not known here: taken are identification, identityProofV2, popLinkRandom, transactionId and senderNonce", unknown...)
	}
	return nil
}

func (d *pkiData) readRequest(reqs cryptobyte.String) error {
	var one cryptobyte.String
	var tag asn1.Tag
	if reqs.Empty() {
		return badRequest("there is no certification request: send one")
	}
	if !reqs.ReadAnyASN1(&one, &tag) {
		return badRequest("a certification request cannot be read")
	}
	switch tag {
	case asn1.Tag(0).ContextSpecific().Constructed():
		var csr cryptobyte.String
		if !one.ReadASN1Integer(&d.part) || !one.ReadASN1Element(&csr, asn1.SEQUENCE) || !one.Empty() {
			return badRequest("a TaggedCertificationRequest is not as RFC 5272 §3.2.1.2.1 has it")
		}
		d.pkcs10 = csr
	case asn1.Tag(1).ContextSpecific().Constructed():
		d.crmf = one
		var certReq cryptobyte.String
		if !one.ReadASN1(&certReq, asn1.SEQUENCE) || !certReq.ReadASN1Integer(&d.part) {
			return badRequest("a CertReqMsg is not as RFC 4211 §3 has it")
		}
	case asn1.Tag(2).ContextSpecific().Constructed():
		if !one.ReadASN1Integer(&d.part) {
			return badRequest("a request of another kind cannot be read")
		}
		return &fault{status: statusNoSupport, parts: []uint32{d.part}, says: "a request of another kind than PKCS#10 and CRMF"}
	default:
		return badRequest("a certification request is of no kind that RFC 5272 §3.2.1.2 has")
	}
	if !reqs.Empty() {
		return badRequest("there is more than one certification request: send one", d.part)
	}
	for _, c := range d.controls {
		if c.part == d.part || d.part == 0 {
			return badRequest("a body part identifier is 0 or comes twice", d.part)
		}
	}
	return nil
}

// octets is the content of a control that is an OCTET STRING; nil if the control is absent.
func (d *pkiData) octets(number int) ([]byte, error) {
	c, ok := d.controls[number]
	if !ok {
		return nil, nil
	}
	var content cryptobyte.String
	value := c.value
	if !value.ReadASN1(&content, asn1.OCTET_STRING) || !value.Empty() || len(content) == 0 || len(content) > maxNonce {
		return nil, badRequest("a control is not an OCTET STRING of 1 to 1024 octets", c.part)
	}
	return content, nil
}

// transaction is what a response says back (RFC 5272 §6.6).
type transaction struct {
	id    []byte // DER of the INTEGER; nil if there was none
	nonce []byte // the sender's
}

// transaction reads what it can: an answer to a bad request should still match it.
func (d *pkiData) transaction() (t transaction, err error) {
	if t.nonce, err = d.octets(cmcSenderNonce); err != nil {
		return t, err
	}
	if c, ok := d.controls[cmcTransactionID]; ok {
		value := c.value
		if !value.SkipASN1(asn1.INTEGER) || !value.Empty() || len(c.value) > maxNonce {
			return t, badRequest("transactionId is not an INTEGER of at most 1024 octets", c.part)
		}
		t.id = c.value
	}
	return t, nil
}

// encodePKIResponse writes the controls of a response: what became of the parts,
// and what belongs to the transaction. newNonce is our own.
func encodePKIResponse(f fault, t transaction, newNonce []byte) ([]byte, error) {
	var b cryptobyte.Builder
	next := int64(0)
	control := func(b *cryptobyte.Builder, number int, value cryptobyte.BuilderContinuation) {
		next++
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(next)
			b.AddASN1ObjectIdentifier(oidCMC(number))
			b.AddASN1(asn1.SET, value)
		})
	}
	empty := func(*cryptobyte.Builder) {}
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			control(b, cmcStatusInfoV2, func(b *cryptobyte.Builder) { b.AddASN1(asn1.SEQUENCE, f.addStatus) })
			if t.id != nil {
				control(b, cmcTransactionID, func(b *cryptobyte.Builder) { b.AddBytes(t.id) })
			}
			if t.nonce != nil {
				control(b, cmcRecipientNonce, func(b *cryptobyte.Builder) { b.AddASN1OctetString(t.nonce) })
				control(b, cmcSenderNonce, func(b *cryptobyte.Builder) { b.AddASN1OctetString(newNonce) })
			}
		})
		b.AddASN1(asn1.SEQUENCE, empty)
		b.AddASN1(asn1.SEQUENCE, empty)
	})
	out, err := b.Bytes()
	if err != nil {
		return nil, errors.New("encoding a PKIResponse: " + err.Error())
	}
	return out, nil
}

func (f fault) addStatus(b *cryptobyte.Builder) {
	b.AddASN1Int64(int64(f.status))
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, part := range f.parts {
			b.AddASN1Int64(int64(part))
		}
		if len(f.parts) == 0 {
			b.AddASN1Int64(0) // the PKIData (RFC 5272 §3.2.2)
		}
	})
	if f.says != "" {
		b.AddASN1(asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(ca.OneLine(f.says, maxText))) })
	}
	if f.status == statusFailed {
		b.AddASN1Int64(int64(f.fail))
	}
}
