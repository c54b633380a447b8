package cmp

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

func (p *printer) infos(l Infos) {
	if len(l) == 0 {
		p.line("an empty list")
	}
	for _, v := range l {
		p.info(v)
	}
}

func (p *printer) info(v Info) {
	name := oidName(v.Type)
	one := Infos{v}
	switch {
	case v.Value == nil:
		p.line("%s", name)
	case !p.knownInfo(name, one):
		p.hex(name, v.Value)
	}
}

// knownInfo writes an info of a type that we can read, and reports whether it is one.
func (p *printer) knownInfo(name string, one Infos) bool {
	if on, err := one.ImplicitConfirm(); on && err == nil {
		p.line("%s", name)
	} else if t, ok, err := one.ConfirmWaitTime(); ok && err == nil {
		p.line("%s: %s", name, t.Format(time.RFC3339))
	} else if names, ok, err := one.CertProfile(); ok && err == nil {
		p.text(name, names)
	} else if tags, ok, err := one.SupportedLangTags(); ok && err == nil {
		p.text(name, tags)
	} else if list, ok, err := one.OrigPKIMessage(Limits{}); ok && err == nil {
		p.within(name, list)
	} else if certs, ok, err := one.CACerts(); ok && err == nil {
		for i, c := range certs {
			p.cert(fmt.Sprintf("%s[%d]", name, i), c)
		}
	} else if c, ok, err := one.RootCACert(); ok && err == nil {
		p.cert(name, c)
	} else if u, ok, err := one.RootCAKeyUpdate(); ok && err == nil {
		p.block(name, func() {
			p.cert("newWithNew", u.NewWithNew)
			if u.NewWithOld != nil {
				p.cert("newWithOld", u.NewWithOld)
			}
			if u.OldWithNew != nil {
				p.cert("oldWithNew", u.OldWithNew)
			}
		})
	} else if t, ok, err := one.CertReqTemplate(); ok && err == nil {
		p.block(name, func() {
			p.template(&t.Template)
			if len(t.KeySpec) > 0 {
				p.block("keySpec", func() { p.attributes(t.KeySpec) })
			}
		})
	} else if list, ok, err := one.CRLStatusList(); ok && err == nil {
		p.block(name, func() {
			for _, s := range list {
				p.crlStatus(s)
			}
		})
	} else if crls, ok, err := one.CRLs(); ok && err == nil {
		for i, c := range crls {
			p.crl(fmt.Sprintf("%s[%d]", name, i), c)
		}
	} else if c, ok, err := one.CurrentCRL(); ok && err == nil {
		p.crl(name, c)
	} else if a, ok, err := one.PreferredSymmAlg(); ok && err == nil {
		p.algorithm(name, a)
	} else if oids, ok, err := one.UnsupportedOIDs(); ok && err == nil {
		for _, oid := range oids {
			p.line("%s: %s", name, oidName(oid))
		}
	} else {
		for _, oid := range []encasn1.ObjectIdentifier{OIDSignKeyPairTypes, OIDEncKeyPairTypes} {
			if algs, ok, err := one.Algorithms(oid); ok && err == nil {
				for _, a := range algs {
					p.algorithm(name, a)
				}
				return true
			}
		}
		return false
	}
	return true
}

func (p *printer) crlStatus(s CRLStatus) {
	for _, n := range s.FullName {
		p.line("distribution point: %s", n)
	}
	p.optHex("distribution point, relative", s.Relative)
	for _, n := range s.Issuer {
		p.line("issuer: %s", n)
	}
	if !s.ThisUpdate.At.IsZero() {
		p.line("  newer than: %s", s.ThisUpdate.At.Format(time.RFC3339))
	}
}

func (p *printer) template(t *CertTemplate) {
	if t.Version != nil {
		p.line("version: %d", *t.Version)
	}
	if t.SerialNumber != nil {
		p.line("serialNumber: %x", t.SerialNumber)
	}
	if t.SigningAlg.Present() {
		p.algorithm("signingAlg", t.SigningAlg)
	}
	if t.Issuer != nil {
		p.line("issuer: %s", nameString(t.Issuer))
	}
	if v := t.Validity; v != nil {
		p.line("validity: %s to %s", showTime(v.NotBefore), showTime(v.NotAfter))
	}
	if t.Subject != nil {
		p.line("subject: %s", nameString(t.Subject))
	}
	if t.PublicKey != nil {
		p.publicKey("publicKey", t.PublicKey)
	}
	p.optHex("issuerUID", t.IssuerUID)
	p.optHex("subjectUID", t.SubjectUID)
	p.extensions("extensions", t.Extensions)
	if t.emptyExtensions {
		p.line("extensions: an empty list")
	}
}

func showTime(t Time) string {
	if t.At.IsZero() {
		return "any time"
	}
	return t.At.Format(time.RFC3339)
}

func (p *printer) publicKey(title string, spki []byte) {
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		p.hex(title+" that cannot be read", spki)
		return
	}
	p.line("%s: %s, SHA-256 %x", title, keyName(pub), sha256.Sum256(spki))
}

func keyName(pub any) string {
	switch key := pub.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return key.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", pub)
}

func (p *printer) extensions(title string, list []pkix.Extension) {
	if len(list) == 0 {
		return
	}
	p.block(title, func() {
		for _, e := range list {
			name := oidName(e.Id)
			if e.Critical {
				name += " (critical)"
			}
			if text, ok := extensionText(e); ok {
				p.line("%s: %s", name, text)
			} else {
				p.hex(name, e.Value)
			}
		}
	})
}

var keyUsages = []string{"digitalSignature", "contentCommitment", "keyEncipherment", "dataEncipherment", "keyAgreement",
	"keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}

// extensionText explains the extensions that requests have.
func extensionText(e pkix.Extension) (string, bool) {
	var parts []string
	switch oidName(e.Id) {
	case "subjectAltName":
		names, err := parseValue(e.Value, "subjectAltName", func(r *in) []GeneralName {
			return oneOrMore(r, "subjectAltName", readGeneralName)
		})
		if err != nil {
			return "", false
		}
		for _, n := range names {
			parts = append(parts, n.String())
		}
	case "keyUsage":
		s := cryptobyte.String(e.Value)
		var bits encasn1.BitString
		if !s.ReadASN1BitString(&bits) || !s.Empty() {
			return "", false
		}
		for i, name := range keyUsages {
			if bits.At(i) == 1 {
				parts = append(parts, name)
			}
		}
	case "extKeyUsage":
		oids, err := parseValue(e.Value, "extKeyUsage", func(r *in) []string {
			return oneOrMore(r, "extKeyUsage", func(r *in) string { return oidName(r.oid("extKeyUsage")) })
		})
		if err != nil {
			return "", false
		}
		parts = oids
	case "reasonCode":
		s := cryptobyte.String(e.Value)
		var code int
		if !s.ReadASN1Enum(&code) || !s.Empty() {
			return "", false
		}
		return reasonName(code), true
	default:
		return "", false
	}
	return strings.Join(parts, ", "), true
}

func reasonName(code int) string {
	names := []string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded",
		"cessationOfOperation", "certificateHold", "", "removeFromCRL", "privilegeWithdrawn", "aACompromise"}
	if code >= 0 && code < len(names) && names[code] != "" {
		return names[code]
	}
	return fmt.Sprint(code)
}

func (p *printer) cert(title string, raw []byte) {
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		p.hex(title+" that cannot be read", raw)
		return
	}
	p.block(title, func() {
		p.line("subject: %s", nameString(c.RawSubject))
		p.line("issuer: %s", nameString(c.RawIssuer))
		p.line("serial number: %x", c.SerialNumber)
		p.line("valid: %s to %s", c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
		p.line("key: %s, signed by %s", keyName(c.PublicKey), c.SignatureAlgorithm)
		p.extensions("extensions", c.Extensions)
		p.line("SHA-256: %x", sha256.Sum256(raw))
	})
}

func (p *printer) crl(title string, raw []byte) {
	c, err := x509.ParseRevocationList(raw)
	if err != nil {
		p.hex(title+" that cannot be read", raw)
		return
	}
	p.line("%s: issuer %s, number %x, %s to %s, %d entries, SHA-256 %x", title, nameString(c.RawIssuer), c.Number,
		c.ThisUpdate.Format(time.RFC3339), c.NextUpdate.Format(time.RFC3339), len(c.RevokedCertificateEntries), sha256.Sum256(raw))
}

func (p *printer) pkcs10(raw []byte) {
	c, err := x509.ParseCertificateRequest(raw)
	if err != nil {
		p.hex("request that cannot be read", raw)
		return
	}
	p.line("subject: %s", nameString(c.RawSubject))
	p.publicKey("publicKey", c.RawSubjectPublicKeyInfo)
	p.extensions("extensions", c.Extensions)
	p.line("signed by: %s", c.SignatureAlgorithm)
	if c.CheckSignature() != nil {
		p.line("its signature does not verify")
	}
	p.hex("PKCS#10", raw)
}
