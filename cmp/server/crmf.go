package server

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// readCRMF reads the one request of an ir, cr or kur (RFC 9483 §4.1.1, §4.1.3).
func (x *exchange) readCRMF(w *wanted) error {
	requests := x.asked.Body.(*cmp.CertRequests)
	if len(requests.Requests) != 1 {
		return refuse(cmp.BadRequest, "RFC 9483 §4.1.1", "%d certificate requests in one message: send one", len(requests.Requests))
	}
	r := requests.Requests[0]
	if r.ID != 0 {
		return refuse(cmp.BadRequest, "RFC 9483 §4.1.1", "certReqId is not 0")
	}
	t := &r.Template
	var err error
	if kind, asked := t.KeyGeneration(); asked {
		err = x.askKey(w, r, kind)
	} else {
		err = x.readKey(w, r)
	}
	if err != nil {
		return err
	}
	if err := x.checkTemplate(t); err != nil {
		return err
	}
	if err := x.checkValidity(w, t.Validity); err != nil {
		return err
	}
	w.issuer = t.Issuer
	subject, san := t.Subject, []byte(nil)
	for _, e := range t.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			san = e.Value
		}
	}
	if err := w.checkExtensions(t.Extensions); err != nil {
		return err
	}
	if requests.Of == cmp.KUR {
		if subject, san, err = x.checkUpdate(r, subject, san); err != nil {
			return err
		}
	}
	if x.requester.Manufacturer != nil && subject != nil && cmp.SameName(subject, x.by.Certificate.RawSubject) {
		w.subject, subject = subject, nil // what the maker calls the device, which OpenSSL's client writes by default, is advice
	}
	if subject == nil {
		subject = []byte{0x30, 0}
	}
	if w.names, err = ca.ParseNames(subject, san); err != nil {
		return &cmp.Error{Info: cmp.BadCertTemplate, Section: "RFC 4211 §5", Reason: "the names cannot be read: " + err.Error(), Err: err}
	}
	return nil
}

// readKey reads the public key, and checks that the requester has the private one.
func (x *exchange) readKey(w *wanted, r *cmp.CertReqMsg) (err error) {
	w.spki = r.Template.PublicKey
	if w.publicKey, err = ca.ParseKey(w.spki); err != nil {
		return err
	}
	return x.checkPOP(w, r)
}

// checkPOP demands the proof by signature, where the key can sign (RFC 9483
// §4.1.1). That an RA has verified it may only a registered RA say (§5.2.3).
func (x *exchange) checkPOP(w *wanted, r *cmp.CertReqMsg) error {
	if r.POP == nil {
		return refuse(cmp.BadPOP, "RFC 9483 §4.1.1", "there is no proof of possession")
	}
	switch r.POP.Method {
	case cmp.RAVerified:
		if x.requester.RA != nil {
			w.possession = ca.Vouched
			return nil
		}
		return refuse(cmp.NotAuthorized, "RFC 9483 §5.2.3", "raVerified is for registration authorities: prove possession by a signature")
	case cmp.KeyEncipherment, cmp.KeyAgreement:
		return x.askProof(w, r.POP)
	}
	rules := cmp.POPRules{Sender: x.popSender(), MAC: x.mac}
	if x.by.MAC != nil {
		rules.Secret = []byte(x.secret)
	}
	return r.VerifyPOP(rules)
}

var (
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	// caUsages would make a device part of the PKI (RFC 9483 §1.5, RFC 6402 §2.10).
	caUsages = []asn1.ObjectIdentifier{
		{1, 3, 6, 1, 5, 5, 7, 3, 9}, {1, 3, 6, 1, 5, 5, 7, 3, 27}, {1, 3, 6, 1, 5, 5, 7, 3, 28}, {1, 3, 6, 1, 5, 5, 7, 3, 32},
	}
)

// checkTemplate refuses what a device may not ask for (RFC 9483 §4.1.1, RFC 4211 §5).
func (x *exchange) checkTemplate(t *cmp.CertTemplate) error {
	bad := func(what string) error {
		return refuse(cmp.BadCertTemplate, "RFC 4211 §5", "%s", what)
	}
	switch {
	case t.Version != nil && *t.Version != 2:
		return bad("version is not v3")
	case t.SerialNumber != nil:
		return bad("serialNumber is the CA's to choose")
	case t.SigningAlg.Present():
		return bad("signingAlg is the CA's to choose")
	case t.IssuerUID != nil || t.SubjectUID != nil:
		return bad("unique identifiers are not issued")
	}
	return nil
}

// checkValidity refuses a period that no certificate can have. Otherwise it is advice (RFC 4211 §5): what is
// issued ends no later than the profile's certificates do, and begins no later than now.
func (x *exchange) checkValidity(w *wanted, v *cmp.OptionalValidity) error {
	if v == nil {
		return nil
	}
	w.notBefore, w.notAfter = v.NotBefore.At, v.NotAfter.At
	text := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case w.notAfter.IsZero():
	case !w.notAfter.After(w.notBefore):
		return refuse(cmp.BadCertTemplate, "RFC 4211 §5", "notAfter %s is not later than notBefore %s", text(w.notAfter), text(w.notBefore))
	case !w.notAfter.After(x.now):
		return refuse(cmp.BadCertTemplate, "RFC 4211 §5", "notAfter %s has passed: ask for a time to come, or leave it out", text(w.notAfter))
	}
	return nil
}

// checkExtensions notes what was asked for beside the names, and refuses what a device may not ask for
// (RFC 9483 §4.1.1). Whatever else is asked for, the profile decides.
func (w *wanted) checkExtensions(asked []pkix.Extension) error {
	bad := func(what string) error { return refuse(cmp.BadCertTemplate, "RFC 4211 §5", "%s", what) }
	for i, e := range asked {
		if len(e.Id) > 0 && slices.ContainsFunc(asked[:i], func(other pkix.Extension) bool { return other.Id.Equal(e.Id) }) {
			return refuse(cmp.BadCertTemplate, "RFC 5280 §4.2", "extension %s is asked for twice", e.Id)
		}
		if !e.Id.Equal(oidSubjectAltName) {
			w.extensions = append(w.extensions, e)
		}
		switch {
		case e.Id.Equal(oidBasicConstraints):
			var v struct {
				CA      bool `asn1:"optional"`
				PathLen int  `asn1:"optional,default:-1"`
			}
			if !whole(e.Value, &v) {
				return bad("basicConstraints cannot be read")
			} else if v.CA {
				return refuse(cmp.NotAuthorized, "RFC 9483 §4.1.1", "devices get no CA certificates")
			}
		case e.Id.Equal(oidExtKeyUsage):
			usages, ok := purposes(e.Value)
			if !ok {
				return bad("extKeyUsage cannot be read")
			}
			for _, u := range caUsages {
				if usages[string(derOID(u))] {
					return refuse(cmp.NotAuthorized, "RFC 9483 §4.1.1", "the extended key usage %s is for parts of the CA", u)
				}
			}
		}
	}
	return nil
}

// checkUpdate: a kur renews the certificate that protects it (RFC 9483 §4.1.3). Names
// that are left out are those of the old certificate.
func (x *exchange) checkUpdate(r *cmp.CertReqMsg, subject, san []byte) (_, _ []byte, err error) {
	old := x.by.Certificate
	if x.requester.Certificate == nil { // an RA's, or a manufacturer's
		return nil, nil, refuse(cmp.NotAuthorized, "RFC 9483 §4.1.3", "a kur is protected by the certificate that it renews: send ir or cr")
	}
	id, named, err := r.Controls.OldCertID()
	if err != nil {
		return nil, nil, err
	}
	if named {
		issuer, ok := id.Issuer.Directory()
		if !ok || !cmp.SameName(issuer, old.RawIssuer) || id.SerialNumber == nil || id.SerialNumber.Cmp(old.SerialNumber) != 0 {
			return nil, nil, refuse(cmp.BadCertID, "RFC 9483 §4.1.3", "oldCertId does not name the certificate that protects the kur")
		}
	}
	if subject == nil {
		subject = old.RawSubject
	}
	if san == nil {
		for _, e := range old.Extensions {
			if e.Id.Equal(oidSubjectAltName) {
				san = e.Value
			}
		}
	}
	return subject, san, nil
}
