package est

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/der"
)

// parseCRMF reads the content of a CertReqMsg (RFC 4211 §3, RFC 5272
// §3.2.1.2.2) and checks its proof of possession, which is a signature: keys that
// cannot sign are not certified here. What a device has no business to ask for is
// Malformed; other extensions than subjectAltName are known and not copied, as in
// PKCS#10. witness is the content of the control popLinkWitnessV2, nil if there is none.
//
//	CertReqMsg ::= SEQUENCE {
//	    certReq CertRequest, popo ProofOfPossession OPTIONAL, regInfo SEQUENCE … OPTIONAL }
//	CertRequest ::= SEQUENCE {
//	    certReqId INTEGER, certTemplate CertTemplate, controls SEQUENCE OF AttributeTypeAndValue OPTIONAL }
//	CertTemplate ::= SEQUENCE {
//	    version [0] INTEGER, serialNumber [1], signingAlg [2], issuer [3] EXPLICIT Name,
//	    validity [4] SEQUENCE { notBefore [0] EXPLICIT Time OPTIONAL, notAfter [1] EXPLICIT Time OPTIONAL },
//	    subject [5] EXPLICIT Name, publicKey [6] SubjectPublicKeyInfo,
//	    issuerUID [7], subjectUID [8], extensions [9] Extensions }      -- all OPTIONAL, IMPLICIT where not said
//	ProofOfPossession ::= CHOICE { raVerified [0] NULL, signature [1] IMPLICIT POPOSigningKey, … }
//	POPOSigningKey ::= SEQUENCE {
//	    poposkInput [0] POPOSigningKeyInput OPTIONAL, algorithmIdentifier AlgorithmIdentifier, signature BIT STRING }
func parseCRMF(msg cryptobyte.String) (csr *ca.CSR, notAfter time.Time, witness cryptobyte.String, err error) {
	malformed := func(says string) error {
		return ca.Errorf(ca.Malformed, "the CRMF request is not as RFC 4211 and RFC 5272 §3.2.1.2.2 have it: %s", says)
	}
	var whole, certReq, template cryptobyte.String
	var id int64
	if !msg.ReadASN1Element(&whole, asn1.SEQUENCE) {
		return nil, notAfter, nil, malformed("no CertRequest")
	}
	inner := whole
	if !inner.ReadASN1(&certReq, asn1.SEQUENCE) || !certReq.ReadASN1Integer(&id) || !certReq.ReadASN1(&template, asn1.SEQUENCE) {
		return nil, notAfter, nil, malformed("no CertTemplate")
	}
	if witness, err = readCRMFControls(&certReq); err != nil {
		return nil, notAfter, nil, malformed(err.Error())
	}
	csr, notAfter, err = readCertTemplate(template)
	if err != nil {
		if _, told := errors.AsType[*ca.Error](err); told {
			return nil, notAfter, nil, err
		}
		return nil, notAfter, nil, malformed(err.Error())
	}
	return csr, notAfter, witness, checkCRMFProof(&msg, whole, csr)
}

func checkCRMFProof(rest *cryptobyte.String, certReq []byte, csr *ca.CSR) error {
	var popo, algorithm cryptobyte.String
	var signature []byte
	if !rest.ReadASN1(&popo, asn1.Tag(1).ContextSpecific().Constructed()) {
		return ca.Errorf(ca.BadPOP, "the CRMF request has no proof of possession by signature")
	}
	if !rest.Empty() {
		return ca.Errorf(ca.Malformed, "regInfo is not allowed in a CRMF request (RFC 5272 §3.2.1.2.2)")
	}
	if !popo.ReadASN1Element(&algorithm, asn1.SEQUENCE) || !popo.ReadASN1BitStringAsBytes(&signature) || !popo.Empty() {
		return ca.Errorf(ca.BadPOP, "the proof of possession is not a POPOSigningKey without poposkInput (RFC 5272 §3.2.1.2.2)")
	}
	return ca.CheckProof("CertRequest", csr.PublicKey, algorithm, certReq, signature)
}

// readCRMFControls takes the optional controls off the end of a CertRequest.
func readCRMFControls(certReq *cryptobyte.String) (witness cryptobyte.String, err error) {
	if certReq.Empty() {
		return nil, nil
	}
	var controls cryptobyte.String
	if !certReq.ReadASN1(&controls, asn1.SEQUENCE) || !certReq.Empty() {
		return nil, errors.New("controls are no SEQUENCE")
	}
	for !controls.Empty() {
		var one, value cryptobyte.String
		var tag asn1.Tag
		oid, ok := "", controls.ReadASN1(&one, asn1.SEQUENCE)
		if ok {
			oid, ok = der.OID(&one)
		}
		if !ok || !one.ReadAnyASN1Element(&value, &tag) || !one.Empty() {
			return nil, errors.New("a control cannot be read")
		}
		if oid != oidCMC(cmcPOPLinkWitnessV2).String() {
			return nil, errors.New("control " + oid + " is not known: popLinkWitnessV2 alone is")
		}
		if witness != nil {
			return nil, errors.New("control popLinkWitnessV2 comes twice")
		}
		witness = value
	}
	return witness, nil
}

func readCertTemplate(template cryptobyte.String) (*ca.CSR, time.Time, error) {
	var notAfter time.Time
	csr := &ca.CSR{}
	var subject, spki, extensions cryptobyte.String
	last := -1
	for !template.Empty() {
		var field cryptobyte.String
		var tag asn1.Tag
		if !template.ReadAnyASN1(&field, &tag) {
			return nil, notAfter, errors.New("a field of CertTemplate cannot be read")
		}
		number := int(tag & 0x1f)
		if tag&0xc0 != 0x80 || number <= last {
			return nil, notAfter, errors.New("the fields of CertTemplate are not in order")
		}
		last = number
		switch number {
		case 0:
			if string(field) != "\x02" { // v3
				return nil, notAfter, errors.New("a version other than 3")
			}
		case 3: // the issuer is for the profile to say
		case 4:
			var err error
			if notAfter, err = readValidity(field); err != nil {
				return nil, notAfter, err
			}
		case 5:
			if !field.ReadASN1Element(&subject, asn1.SEQUENCE) || !field.Empty() {
				return nil, notAfter, errors.New("the subject is no Name")
			}
		case 6:
			var b cryptobyte.Builder
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(field) })
			spki = b.BytesOrPanic()
		case 9:
			extensions = field
		default:
			return nil, notAfter, errors.New("it asks for a serial number, a signature algorithm, or unique identifiers")
		}
	}
	if subject == nil || spki == nil {
		return nil, notAfter, errors.New("subject and publicKey must both be there")
	}
	pub, err := ca.ParseKey(spki)
	if err != nil {
		return nil, notAfter, err
	}
	san, err := readExtensions(extensions)
	if err != nil {
		return nil, notAfter, err
	}
	csr.PublicKey, csr.SPKI = pub, spki
	if csr.Names, err = ca.ParseNames(subject, san); err != nil {
		return nil, notAfter, err
	}
	return csr, notAfter, nil
}

// readValidity wants no notBefore: certificates begin when they are issued.
func readValidity(field cryptobyte.String) (time.Time, error) {
	var explicit cryptobyte.String
	if field.Empty() {
		return time.Time{}, nil
	}
	if !field.ReadASN1(&explicit, asn1.Tag(1).ContextSpecific().Constructed()) || !field.Empty() {
		return time.Time{}, errors.New("a validity other than one notAfter")
	}
	t, err := der.Time(&explicit)
	if err != nil || !explicit.Empty() {
		return time.Time{}, errors.New("notAfter is no Time")
	}
	return t, nil
}

// readExtensions finds the value of subjectAltName.
func readExtensions(extensions cryptobyte.String) (san []byte, err error) {
	var seen []string
	for !extensions.Empty() {
		oid, value, ok := der.Extension(&extensions)
		if !ok {
			return nil, errors.New("an extension cannot be read")
		}
		if slices.Contains(seen, oid) {
			return nil, errors.New("extension " + oid + " is asked for twice, and a certificate has it once (RFC 5280 §4.2)")
		}
		if len(seen) == maxControls {
			return nil, fmt.Errorf("more than %d extensions", maxControls)
		}
		seen = append(seen, oid)
		if oid == oidSubjectAltName.String() {
			san = value
		}
	}
	return san, nil
}
