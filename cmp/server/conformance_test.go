package server_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// csrOf is a PKCS#10 request of a version, which asks for extensions.
func csrOf(t testing.TB, cn string, key crypto.Signer, version int, asked ...pkix.Extension) []byte {
	t.Helper()
	raw := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}, ExtraExtensions: asked}, key))
	if version == 0 {
		return raw
	}
	var csr struct {
		Info, Algorithm asn1.RawValue
		Signature       asn1.BitString
	}
	if _, err := asn1.Unmarshal(raw, &csr); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(csr.Info.FullBytes, []byte{2, 1, 0})
	csr.Info.FullBytes[at+2] = byte(version)
	digest := sha256.Sum256(csr.Info.FullBytes)
	csr.Signature = asn1.BitString{Bytes: must[[]byte](t)(key.Sign(rand.Reader, digest[:], crypto.SHA256))}
	csr.Signature.BitLength = 8 * len(csr.Signature.Bytes)
	return must[[]byte](t)(asn1.Marshal(csr))
}

var (
	oidKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	clientAuth     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	serverAuth     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
)

// bitsOf is a keyUsage with the first bit as asked, of a length in bits.
func bitsOf(first byte, length int) asn1.BitString {
	return asn1.BitString{Bytes: append([]byte{first}, make([]byte, (length-1)/8)...), BitLength: length}
}

// RFC 9810 §5.2.3: accepted is exactly what was asked for. RFC 4211 §5: the CA may change what was asked for, but
// the key; then it is grantedWithMods, and the text says what.
func TestGrantedWithMods(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 100)
	issuing := must[*x509.Certificate](t)(x509.ParseCertificate(must2(e.core.CACert("issuing"))))
	now := e.now().UTC().Truncate(time.Second)
	validity := func(from, to time.Time) func(*cmp.CertTemplate) {
		return func(c *cmp.CertTemplate) {
			c.Validity = &cmp.OptionalValidity{NotBefore: cmp.Time{At: from}, NotAfter: cmp.Time{At: to}}
		}
	}
	asks := func(oid asn1.ObjectIdentifier, v any) func(*cmp.CertTemplate) {
		return func(c *cmp.CertTemplate) { c.Extensions = []pkix.Extension{extension(oid, v)} }
	}
	for _, c := range []struct {
		name string
		edit func(*cmp.CertTemplate)
		text string // in the status; "" for accepted
	}{
		{"nothing", func(*cmp.CertTemplate) {}, ""},
		{"the issuer", func(c *cmp.CertTemplate) { c.Issuer = issuing.RawSubject }, ""},
		{"another issuer", func(c *cmp.CertTemplate) { c.Issuer = name("another CA") }, "the issuer is"},
		{"keyUsage as the profile has it", asks(oidKeyUsage, bitsOf(0x80, 1)), ""},
		{"keyUsage with zeros at its end", asks(oidKeyUsage, bitsOf(0x80, 9)), ""},
		{"another keyUsage", asks(oidKeyUsage, bitsOf(0xa0, 3)), "extension 2.5.29.15"},
		{"extKeyUsage as the profile has it", asks(oidExtKeyUsage, []asn1.ObjectIdentifier{clientAuth}), ""},
		{"another extKeyUsage", asks(oidExtKeyUsage, []asn1.ObjectIdentifier{serverAuth}), "extension 2.5.29.37"},
		{"more in extKeyUsage", asks(oidExtKeyUsage, []asn1.ObjectIdentifier{clientAuth, serverAuth}), "extension 2.5.29.37"},
		{"a subjectKeyIdentifier", asks(asn1.ObjectIdentifier{2, 5, 29, 14}, []byte("mine")), "extension 2.5.29.14"},
		{"an extension of the client's own", asks(asn1.ObjectIdentifier{1, 2, 3, 4}, 1), "no extension 1.2.3.4"},
		{"notBefore now", validity(now, time.Time{}), ""},
		{"notBefore before the backdating", validity(now.Add(-time.Hour), time.Time{}), "begins at"},
		{"notBefore to come", validity(now.Add(time.Hour), time.Time{}), "begins at"},
		{"notAfter sooner", validity(time.Time{}, now.Add(time.Hour)), ""},
		{"notAfter later", validity(time.Time{}, now.AddDate(9, 0, 0)), "ends at"},
		{"a period within", validity(now.Add(-time.Minute), now.Add(time.Hour)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			answer := e.ask(e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), func(r *cmp.CertReqMsg) { c.edit(&r.Template) })), cmp.ImplicitConfirm()), lamp)
			got := status(answer)
			if text := strings.Join(got.Text, "; "); got.Status != map[bool]cmp.Status{true: cmp.Accepted, false: cmp.GrantedWithMods}[c.text == ""] || !strings.Contains(text, c.text) || c.text == "" && text != "" {
				t.Errorf("%v", got)
			}
			cert := e.certificate(answer)
			if template := (&cmp.CertTemplate{}); c.text == "" {
				if c.edit(template); template.Validity != nil {
					if v := template.Validity; !v.NotBefore.At.IsZero() && !cert.NotBefore.Equal(v.NotBefore.At) || !v.NotAfter.At.IsZero() && !cert.NotAfter.Equal(v.NotAfter.At) {
						t.Errorf("from %s to %s", cert.NotBefore, cert.NotAfter)
					}
				}
			}
		})
	}
	for usage, want := range map[byte]cmp.Status{0x80: cmp.Accepted, 0xa0: cmp.GrantedWithMods} {
		csr := csrOf(t, "lamp-1", newKey(t), 0, extension(oidKeyUsage, bitsOf(usage, 3)))
		if got := status(e.ask(e.message(&cmp.PKCS10{Request: csr}, cmp.ImplicitConfirm()), lamp)); got.Status != want {
			t.Errorf("p10cr with keyUsage %x: %v, want %s", usage, got, want)
		}
	}
}

func must2(b []byte, ok bool) []byte {
	if !ok {
		panic("not there")
	}
	return b
}

// What a client asks for wrongly is no fault of ours: no line of level ERROR.
func TestClientFaultsAreNoErrors(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 1)
	var log bytes.Buffer
	e.server.Logger = slog.New(slog.NewTextHandler(&log, nil))
	passed := crmf(t, "lamp-1", newKey(t), func(r *cmp.CertReqMsg) {
		r.Template.Validity = &cmp.OptionalValidity{NotAfter: cmp.Time{At: e.now().Add(-time.Hour)}}
	})
	if got := status(e.ask(e.message(requests(cmp.IR, passed)), lamp)); got.FailInfo != cmp.BadCertTemplate || !strings.Contains(got.Text[0], "has passed") {
		t.Error(got)
	}
	if text := log.String(); strings.Contains(text, "level=ERROR") || !strings.Contains(text, "has passed") {
		t.Error(text)
	}
}

// RFC 9483 §4.2: whatever certDetails says beside issuer and serialNumber must be so.
func TestRevocationDetails(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	for what, edit := range map[string]func(*cmp.CertTemplate){
		"version": func(c *cmp.CertTemplate) { v := int64(1); c.Version = &v },
		"signingAlg": func(c *cmp.CertTemplate) {
			c.SigningAlg = cmp.Algorithm{OID: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}}
		},
		"notBefore": func(c *cmp.CertTemplate) {
			c.Validity = &cmp.OptionalValidity{NotBefore: cmp.Time{At: own.crt.NotBefore.Add(time.Second)}}
		},
		"notAfter": func(c *cmp.CertTemplate) {
			c.Validity = &cmp.OptionalValidity{NotAfter: cmp.Time{At: own.crt.NotAfter.Add(time.Second)}}
		},
		"subject": func(c *cmp.CertTemplate) { c.Subject = name("lamp-2") },
		"publicKey": func(c *cmp.CertTemplate) {
			c.PublicKey = must[[]byte](t)(x509.MarshalPKIXPublicKey(newKey(t).Public()))
		},
		"issuerUID": func(c *cmp.CertTemplate) { c.IssuerUID = []byte{3, 2, 0, 1} },
		"extension": func(c *cmp.CertTemplate) { c.Extensions = []pkix.Extension{extension(oidKeyUsage, bitsOf(0x20, 3))} },
		"no such one": func(c *cmp.CertTemplate) {
			c.Extensions = []pkix.Extension{extension(asn1.ObjectIdentifier{1, 2, 3}, 1)}
		},
	} {
		m := e.revocation(own, 1)
		edit(&m.Body.(*cmp.Revocations).List[0].Template)
		if got := status(e.ask(m, own)); got.FailInfo != cmp.BadCertID || e.revoked(own.crt) {
			t.Errorf("another %s: %v", what, got)
		}
	}
	// All of it, as it is in the certificate.
	m := e.revocation(own, 1)
	version := int64(2)
	template := &m.Body.(*cmp.Revocations).List[0].Template
	template.Version, template.Subject, template.PublicKey = &version, own.crt.RawSubject, own.crt.RawSubjectPublicKeyInfo
	template.Validity = &cmp.OptionalValidity{NotBefore: cmp.Time{At: own.crt.NotBefore}, NotAfter: cmp.Time{At: own.crt.NotAfter}}
	template.SigningAlg = cmp.Algorithm{OID: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	template.Extensions = own.crt.Extensions
	if got := status(e.ask(m, own)); got.Status != cmp.Accepted || !e.revoked(own.crt) {
		t.Error(got)
	}
}

// RFC 9810 §5.3.9 has crlEntryDetails OPTIONAL, and OpenSSL leaves it out: no reason is unspecified.
func TestRevokeWithoutReason(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	m := e.revocation(own, 1)
	m.Body.(*cmp.Revocations).List[0].Entry = nil
	if got := status(e.ask(m, own)); got.Status != cmp.Accepted {
		t.Fatal(got)
	}
	if c := must[*ca.Certificate](t)(e.store.CertificateBySerial(t.Context(), serialOf(own))); c.Revocation == nil || c.Revocation.Reason != ca.ReasonUnspecified {
		t.Errorf("%+v", c.Revocation)
	}
}

// RFC 9483 §4.3, RFC 9810 §5.3.19: which question has a value.
func TestQuestionValues(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	for _, oid := range []asn1.ObjectIdentifier{cmp.OIDCACerts, cmp.OIDCertReqTemplate, cmp.OIDSignKeyPairTypes, cmp.OIDEncKeyPairTypes,
		cmp.OIDPreferredSymmAlg, cmp.OIDCAProtEncCert, cmp.OIDCurrentCRL} {
		if got := status(e.ask(e.message(&cmp.General{Infos: cmp.Infos{{Type: oid, Value: []byte{5, 0}}}}), own)); got.FailInfo != cmp.BadRequest {
			t.Errorf("%s with a value: %v", oid, got)
		}
	}
	if got := status(e.ask(e.message(&cmp.General{Infos: cmp.Infos{{Type: cmp.OIDCRLStatusList}}}), own)); got.FailInfo != cmp.BadRequest {
		t.Errorf("crlStatusList without a value: %v", got)
	}
	// RFC 9483 §4.3.2: without a value it is about the root before the newest, and there is none.
	infos := e.ask(e.message(&cmp.General{Infos: cmp.Infos{cmp.RootCACert(nil)}}), own).Body.(*cmp.General).Infos
	if update, found, err := infos.RootCAKeyUpdate(); update != nil || !found || err != nil {
		t.Errorf("rootCaCert without a value: %v, %t, %v", update, found, err)
	}
}

// RFC 9483 §3.2: what is wrong with a message whose MAC is right is told under that MAC, whatever it is.
func TestRefusalsUnderMAC(t *testing.T) {
	e := newEnv(t)
	lamp, own := e.register("lamp-1", 9), e.enrolled("lamp-2")
	for _, c := range []struct {
		name string
		body cmp.Body
		edit func(*cmp.Header)
		want cmp.FailInfo
	}{
		{"pvno", &cmp.General{}, func(h *cmp.Header) { h.Version = 4 }, cmp.UnsupportedVersion},
		{"transactionID", &cmp.General{}, func(h *cmp.Header) { h.TransactionID = nil }, cmp.BadDataFormat},
		{"senderNonce", &cmp.General{}, func(h *cmp.Header) { h.SenderNonce = nil }, cmp.BadSenderNonce},
		{"recipNonce", &cmp.General{}, func(h *cmp.Header) { h.RecipNonce = h.SenderNonce }, cmp.BadRecipientNonce},
		{"messageTime", &cmp.General{}, func(h *cmp.Header) { h.Time = h.Time.Add(-time.Hour) }, cmp.BadTime},
		{"no messageTime", &cmp.General{}, func(h *cmp.Header) { h.Time = time.Time{} }, cmp.BadTime},
		{"generalInfo", &cmp.General{}, func(h *cmp.Header) { h.GeneralInfo = cmp.Infos{{Type: cmp.OIDConfirmWaitTime}} }, cmp.BadDataFormat},
		{"kur", e.kurFor("lamp-1"), nil, cmp.WrongIntegrity},
		{"rr", e.revocation(own, 1).Body, nil, cmp.WrongIntegrity},
	} {
		m := e.message(c.body)
		if c.edit != nil {
			c.edit(&m.Header)
		}
		raw := e.protected(m, lamp)
		answer := e.post("", raw)
		if err := lamp.mac.Verify(answer); err != nil || status(answer).FailInfo != c.want {
			t.Errorf("%s: %v; %v, want %s", c.name, err, status(answer), c.want)
		}
		// A wrong MAC is not answered under a secret.
		flipped := must[*cmp.Message](t)(cmp.Parse(raw))
		flipped.Protection[0] ^= 1
		if answer := e.post("", must[[]byte](t)(flipped.Marshal())); answer.UsesMAC() {
			t.Errorf("%s: a wrong MAC is answered under the right one", c.name)
		}
	}
}

// RFC 9483 §3.1: a senderNonce of its own for each message; §4.1.1: what certConf says.
func TestConfirmationDetails(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	for _, c := range []struct {
		name   string
		status *cmp.StatusInfo
		again  bool // the senderNonce of the request
		want   cmp.FailInfo
	}{
		{"accepted with failInfo", &cmp.StatusInfo{Status: cmp.Accepted, FailInfo: cmp.BadCertTemplate}, false, cmp.BadRequest},
		{"grantedWithMods", &cmp.StatusInfo{Status: cmp.GrantedWithMods}, false, cmp.BadRequest},
		{"waiting", &cmp.StatusInfo{Status: cmp.Waiting}, false, cmp.BadRequest},
		{"the senderNonce of the request", nil, true, cmp.BadSenderNonce},
		{"accepted", &cmp.StatusInfo{Status: cmp.Accepted}, false, 0},
	} {
		first := e.message(e.kurFor("lamp-1"))
		answer := e.ask(first, own)
		cert := e.certificate(answer)
		confirm := func(s *cmp.StatusInfo) *cmp.Message {
			return cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](t)(cmp.Confirmation(cert.Raw, 0, s))}}, e.now())
		}
		conf := confirm(c.status)
		if c.again {
			conf.Header.SenderNonce = first.Header.SenderNonce
		}
		reply := e.post("", e.protected(conf, own))
		if got := status(reply); got.FailInfo != c.want || (reply.Body.Type() == cmp.PKIConf) != (c.want == 0) || e.revoked(cert) {
			t.Errorf("%s: %s %v, want %s", c.name, reply.Body.Type(), got, c.want)
		}
		// The certificate waits on, and may be confirmed as it should be.
		if c.want != 0 {
			if reply := e.ask(confirm(nil), own); reply.Body.Type() != cmp.PKIConf {
				t.Errorf("%s, then rightly: %v", c.name, status(reply))
			}
		}
	}
}

// RFC 9810 §5.1.1 recommends 128 bits for the transactionID, and RFC 9483 §3.5 has a server check that there is one.
func TestTransactionIDs(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	for length, want := range map[int]cmp.FailInfo{1: 0, 8: 0, 16: 0, 64: 0, 65: cmp.BadDataFormat} {
		m := e.message(&cmp.General{})
		m.Header.TransactionID = bytes.Repeat([]byte{7}, length)
		answer := e.post("", e.protected(m, own))
		if got := status(answer).FailInfo; got != want || !bytes.Equal(answer.Header.TransactionID, m.Header.TransactionID) {
			t.Errorf("%d octets: %s, want %s", length, got, want)
		}
	}
}

// RFC 9810 §5.1.1: messageTime is a GeneralizedTime, which may have a fraction.
func TestFractionalTime(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 1)
	m := e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil)))
	m.Header.Time = e.now().Truncate(time.Second).Add(-123 * time.Millisecond)
	e.certificate(e.ask(m, lamp))
}

// RFC 9481 §6.1.2: the iterations that common clients write in PBMAC1, with each hash.
func TestCommonIterations(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 1)
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA512} {
		mac := must[*cmp.MAC](t)(cmp.NewMAC(lamp.mac.Reference(), lamp.secret, cmp.MACParams{Kind: cmp.PBMAC1, OWF: hash, Iterations: 262_144, KeyLength: hash.Size()}))
		if answer := e.ask(e.message(&cmp.General{}), party{mac: mac}); answer.Body.Type() != cmp.GenP {
			t.Errorf("%s: %v", hash, status(answer))
		}
	}
}

// RFC 9483 §3.3: a self-signed protection certificate may be left out of extraCerts, if the CA knows it.
func TestKnownRA(t *testing.T) {
	e := newEnv(t)
	key := newKey(t)
	self := func(kid string) party {
		return party{key: key, crt: issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "line-1"}, SubjectKeyId: []byte(kid),
			UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 28}}}, nil, key.Public(), key)}
	}
	ra, other := self("line one"), self("another")
	ask := func(by party, others ...[]byte) cmp.StatusInfo {
		m := e.message(requests(cmp.CR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm())
		m.ExtraCerts = others
		if err := m.Protect(must[*cmp.Signer](t)(cmp.NewSigner(by.key, by.crt, cmp.SignerOptions{WithoutCerts: true}))); err != nil {
			t.Fatal(err)
		}
		return status(e.post("", m.Raw()))
	}
	if got := ask(ra); got.FailInfo != cmp.BadMessageCheck {
		t.Errorf("not registered: %v", got)
	}
	must[*ca.RA](t)(e.core.AddRA(t.Context(), ca.RA{Name: "line-1", Cert: ra.crt.Raw, Names: []string{"lamp-*"}, Levels: []string{"software"}}, "admin:test"))
	if got := ask(ra); got.Status != cmp.Accepted {
		t.Errorf("registered: %v", got)
	}
	if got := ask(ra, e.root); got.Status != cmp.Accepted {
		t.Errorf("registered, with other certificates: %v", got)
	}
	if got := ask(other); got.FailInfo != cmp.BadMessageCheck {
		t.Errorf("its key under another identifier: %v", got)
	}
	if err := e.core.RemoveRA(t.Context(), "line-1", "admin:test"); err != nil {
		t.Fatal(err)
	}
	if got := ask(ra); got.FailInfo != cmp.BadMessageCheck {
		t.Errorf("removed: %v", got)
	}
}

// oddMessages are what clients send, and the rules forbid or leave open: seeds for FuzzBody.
func (e *env) oddMessages() (all []*cmp.Message) {
	t := e.t
	own := e.enrolled("odd-1")
	now := e.now()
	template := func(edit func(*cmp.CertTemplate)) cmp.Body {
		return requests(cmp.IR, crmf(t, "device", newKey(t), func(r *cmp.CertReqMsg) { edit(&r.Template) }))
	}
	revocation := func(edit func(*cmp.Revocation)) cmp.Body {
		v := cmp.RevokeCert(own.crt.RawIssuer, own.crt.SerialNumber, 1)
		edit(&v)
		return &cmp.Revocations{List: []cmp.Revocation{v}}
	}
	for _, body := range []cmp.Body{
		template(func(c *cmp.CertTemplate) { c.Issuer = own.crt.RawIssuer }),
		template(func(c *cmp.CertTemplate) {
			c.Validity = &cmp.OptionalValidity{NotBefore: cmp.Time{At: now.Add(time.Hour)}, NotAfter: cmp.Time{At: now}}
		}),
		template(func(c *cmp.CertTemplate) {
			c.Extensions = []pkix.Extension{extension(oidKeyUsage, bitsOf(0xa0, 9)), extension(oidExtKeyUsage, []asn1.ObjectIdentifier{serverAuth}), extension(asn1.ObjectIdentifier{2, 5, 29, 14}, []byte("mine"))}
		}),
		revocation(func(v *cmp.Revocation) { v.Entry = append(v.Entry, v.Entry...) }),
		revocation(func(v *cmp.Revocation) { v.Entry = nil }),
		revocation(func(v *cmp.Revocation) {
			v.Template.Subject, v.Template.PublicKey = name("x"), own.crt.RawSubjectPublicKeyInfo
		}),
		&cmp.Confirmations{List: []cmp.CertStatus{{CertHash: make([]byte, 32), Status: &cmp.StatusInfo{FailInfo: cmp.BadAlg}}}},
		&cmp.General{Infos: cmp.Infos{{Type: cmp.OIDCACerts, Value: []byte{5, 0}}}},
		&cmp.General{Infos: cmp.Infos{{Type: cmp.OIDCRLStatusList}}},
		&cmp.General{Infos: cmp.Infos{cmp.RootCACert(nil)}},
		&cmp.PKCS10{Request: csrOf(t, "device", newKey(t), 1, extension(oidKeyUsage, bitsOf(0xa0, 3)))},
	} {
		for _, m := range []*cmp.Message{e.message(body), e.timeless(body, cmp.Info{Type: cmp.OIDConfirmWaitTime, Value: append([]byte{23, 13}, "260504120000Z"...)})} {
			e.protected(m, own)
			all = append(all, m)
		}
	}
	return all
}
