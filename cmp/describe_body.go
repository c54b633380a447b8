package cmp

import (
	"fmt"
)

func (p *printer) body(b Body) {
	switch b := b.(type) {
	case *CertRequests:
		for i, r := range b.Requests {
			p.block(fmt.Sprintf("request[%d]", i), func() { p.request(r) })
		}
	case *PKCS10:
		p.pkcs10(b.Request)
	case *CertResponses:
		for i, c := range b.CAPubs {
			p.cert(fmt.Sprintf("caPubs[%d]", i), c)
		}
		for i, r := range b.Responses {
			p.block(fmt.Sprintf("response[%d]", i), func() { p.response(r) })
		}
	case *Revocations:
		for i, r := range b.List {
			p.block(fmt.Sprintf("revoke[%d]", i), func() {
				p.template(&r.Template)
				p.extensions("crlEntryDetails", r.Entry)
			})
		}
	case *RevocationResults:
		for i, s := range b.Statuses {
			p.status(fmt.Sprintf("status[%d]", i), s)
		}
		for i, id := range b.Certs {
			p.certID(fmt.Sprintf("revCerts[%d]", i), id)
		}
		for i, c := range b.CRLs {
			p.crl(fmt.Sprintf("crls[%d]", i), c)
		}
	case *Confirmations:
		if len(b.List) == 0 {
			p.line("an empty list: all certificates are rejected")
		}
		for i, c := range b.List {
			p.block(fmt.Sprintf("certStatus[%d]", i), func() { p.certStatus(c) })
		}
	case *General:
		p.infos(b.Infos)
	case *NestedMessages:
		p.within("message", b.Messages)
	case *ErrorBody:
		p.status("status", b.Status)
		if b.Code != nil {
			p.line("errorCode: %#x", b.Code) // OpenSSL packs library and reason into it
		}
		p.text("errorDetails", b.Details)
	case *PollRequests:
		for _, id := range b.CertReqIDs {
			p.line("certReqId: %d", id)
		}
	case *PollReplies:
		for _, r := range b.Replies {
			p.line("certReqId: %d, check after %s", r.CertReqID, r.CheckAfter)
			p.text("reason", r.Reason)
		}
	case *Challenges:
		for i, c := range b.List {
			p.block(fmt.Sprintf("challenge[%d]", i), func() { p.challenge(c) })
		}
	case *ChallengeAnswers:
		for _, n := range b.List {
			p.line("answer: %x", n)
		}
	case *OpaqueBody:
		if b.Of == CAnn {
			p.cert("certificate", b.Content)
		} else {
			p.hex("content", b.Content)
		}
	case *Confirm:
		p.line("NULL")
	}
}

func (p *printer) request(r *CertReqMsg) {
	p.line("certReqId: %d", r.ID)
	p.block("certTemplate", func() { p.template(&r.Template) })
	if _, asked := r.Template.KeyGeneration(); asked && r.POP == nil {
		p.line("key: to be made by the CA")
	}
	if len(r.Controls) > 0 {
		p.block("controls", func() { p.attributes(r.Controls) })
	}
	switch {
	case r.POP == nil:
		p.line("proof of possession: none")
	case r.POP.Signature != nil:
		p.block("proof of possession: signature", func() { p.popSignature(r.POP.Signature) })
	case r.POP.Key != nil:
		k := r.POP.Key
		p.line("proof of possession: %s, %s", r.POP.Method, k.Method)
		p.depth++
		if k.Method == SubsequentMessage {
			p.line("asks for: %s", subsequentName(k.Subsequent))
		} else {
			p.hex("value", k.Value)
		}
		p.depth--
	default:
		p.line("proof of possession: %s", r.POP.Method)
	}
	if len(r.RegInfo) > 0 {
		p.block("regInfo", func() { p.attributes(r.RegInfo) })
	}
}

func subsequentName(n int64) string {
	switch n {
	case EncrCert:
		return "encrCert"
	case ChallengeResp:
		return "challengeResp"
	}
	return fmt.Sprint(n)
}

func (p *printer) popSignature(s *POPSignature) {
	if s.Input != nil {
		p.block("poposkInput", func() {
			if s.Input.MAC != nil {
				p.algorithm("publicKeyMAC", s.Input.MAC.Algorithm)
				p.hex("value", s.Input.MAC.Value)
			} else {
				p.line("sender: %s", s.Input.Sender)
			}
			p.publicKey("publicKey", s.Input.PublicKey)
		})
	}
	p.algorithm("algorithm", s.Algorithm)
	p.hex("signature", s.Signature)
}

func (p *printer) attributes(l Attributes) {
	for _, a := range l {
		one := Attributes{a}
		name := oidName(a.Type)
		if s, ok, err := one.RegToken(); ok && err == nil {
			p.line("%s: %+q", name, s)
		} else if s, ok, err := one.Authenticator(); ok && err == nil {
			p.line("%s: %+q", name, s)
		} else if id, ok, err := one.OldCertID(); ok && err == nil {
			p.certID(name, id)
		} else if k, ok, err := one.ProtocolEncrKey(); ok && err == nil {
			p.publicKey(name, k)
		} else if v, ok, err := one.PublicationInfo(); ok && err == nil {
			p.publication(name, v)
		} else if algs, bits, err := one.KeySpecs(); err == nil && len(algs) == 1 {
			p.algorithm(name, algs[0])
		} else if err == nil && len(bits) == 1 {
			p.line("%s: %d bits", name, bits[0])
		} else {
			p.hex(name, a.Value)
		}
	}
}

func (p *printer) publication(title string, v PublicationInfo) {
	if !v.Publish {
		p.line("%s: dontPublish", title)
	} else {
		p.line("%s: pleasePublish", title)
	}
	for _, place := range v.Places {
		p.line("  method %d, location %s", place.Method, place.Location)
	}
}

func (p *printer) certID(title string, id CertID) {
	p.line("%s: serial number %x of %s", title, id.SerialNumber, id.Issuer)
}

func (p *printer) response(r CertResponse) {
	p.line("certReqId: %d", r.CertReqID)
	p.status("status", r.Status)
	if k := r.KeyPair; k != nil {
		if k.EncryptedCert != nil {
			p.encrypted("encryptedCert", k.EncryptedCert)
		} else {
			p.cert("certificate", k.Certificate)
		}
		if k.PrivateKey != nil {
			p.encrypted("privateKey", k.PrivateKey)
		}
		if k.Publication != nil {
			p.publication("publicationInfo", *k.Publication)
		}
	}
	p.optHex("rspInfo", r.Info)
}

func (p *printer) encrypted(title string, k *EncryptedKey) {
	if k.EnvelopedData != nil {
		p.enveloped(title, k.EnvelopedData)
	} else {
		p.hex(title+": EncryptedValue", k.EncryptedValue)
	}
}

func (p *printer) certStatus(c CertStatus) {
	p.line("certReqId: %d", c.CertReqID)
	p.hex("certHash", c.CertHash)
	if c.HashAlg.Present() {
		p.algorithm("hashAlg", c.HashAlg)
	}
	if c.Status != nil {
		p.status("status", *c.Status)
	} else {
		p.line("status: none, which accepts")
	}
}

func (p *printer) challenge(c Challenge) {
	if c.OWF.Present() {
		p.algorithm("owf", c.OWF)
	}
	p.hex("witness", c.Witness)
	p.hex("challenge", c.Challenge)
	if c.EncryptedRand != nil {
		p.enveloped("encryptedRand", c.EncryptedRand)
	}
}
