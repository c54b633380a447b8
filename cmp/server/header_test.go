package server_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// RFC 9483 §3.1, §3.3, §5.1: what every answer's header and extraCerts are.
func TestAnswerHeader(t *testing.T) {
	e := newEnv(t)
	own, lamp := e.enrolled("lamp-1"), e.register("lamp-2", 9)
	for _, c := range []struct {
		name    string
		by      party
		body    cmp.Body
		version int
		want    int // version of the answer
	}{
		{"signed, pvno 2", own, e.kurFor("lamp-1"), 2, 2},
		{"signed, pvno 3", own, e.kurFor("lamp-1"), 3, 3},
		{"MAC", lamp, requests(cmp.IR, crmf(t, "lamp-2", newKey(t), nil)), 2, 2},
		{"genm", own, &cmp.General{}, 3, 3},
		{"a refusal", own, e.kurFor("lamp-9"), 2, 2},
		{"RFC 9810 §7 pvno 1: the nearest", own, e.kurFor("lamp-1"), 1, 2},
		{"RFC 9810 §7 pvno 4: the nearest", own, e.kurFor("lamp-1"), 4, 3},
	} {
		m := e.message(c.body)
		m.Header.Version = c.version
		e.protected(m, c.by)
		answer := e.post("", m.Raw())
		h := &answer.Header
		switch {
		case c.version != c.want && status(answer).FailInfo != cmp.UnsupportedVersion:
			t.Errorf("%s: %v", c.name, status(answer))
		case h.Version != c.want:
			t.Errorf("%s: pvno %d", c.name, h.Version)
		case !bytes.Equal(h.TransactionID, m.Header.TransactionID) || !bytes.Equal(h.RecipNonce, m.Header.SenderNonce):
			t.Errorf("%s: transactionID or recipNonce is not the request's", c.name)
		case len(h.SenderNonce) < 16 || bytes.Equal(h.SenderNonce, m.Header.SenderNonce):
			t.Errorf("%s: senderNonce %x", c.name, h.SenderNonce)
		case !bytes.Equal(h.Recipient, m.Header.Sender):
			t.Errorf("%s: recipient %s", c.name, h.Recipient)
		case e.now().Sub(h.Time).Abs() > time.Minute:
			t.Errorf("%s: messageTime %s", c.name, h.Time)
		}
		if _, found := h.GeneralInfo.Get(cmp.OIDCertProfile); found {
			t.Errorf("%s: certProfile in an answer", c.name)
		}
		until, waits, err := h.GeneralInfo.ConfirmWaitTime()
		if granted := status(answer).Status == cmp.Accepted && answer.Body.Type() != cmp.GenP; err != nil || waits != granted {
			t.Errorf("%s: confirmWaitTime %s, %v", c.name, until, err)
		} else if left := until.Sub(e.now()); waits && (left < 9*time.Minute || left > 11*time.Minute) {
			t.Errorf("%s: waits for %s", c.name, left)
		}
		if c.by.mac != nil {
			continue
		}
		// The protection certificate, then what certifies it, then the rest; nothing self-signed.
		chain := make([]*x509.Certificate, len(answer.ExtraCerts))
		for i, raw := range answer.ExtraCerts {
			chain[i] = must[*x509.Certificate](t)(x509.ParseCertificate(raw))
			if bytes.Equal(chain[i].RawIssuer, chain[i].RawSubject) {
				t.Errorf("%s: extraCerts have the self-signed %s", c.name, chain[i].Subject)
			}
		}
		if len(chain) < 2 || chain[0].CheckSignatureFrom(chain[1]) != nil {
			t.Fatalf("%s: %d extraCerts, out of order", c.name, len(chain))
		}
		if dn, _ := h.Sender.Directory(); !bytes.Equal(dn, chain[0].RawSubject) || !bytes.Equal(h.SenderKID, chain[0].SubjectKeyId) {
			t.Errorf("%s: sender %s, senderKID %x", c.name, h.Sender, h.SenderKID)
		}
		if len(chain[0].UnknownExtKeyUsage) != 1 || chain[0].UnknownExtKeyUsage[0].String() != "1.3.6.1.5.5.7.3.27" {
			t.Errorf("%s: the signer is for %v, not id-kp-cmcCA", c.name, chain[0].UnknownExtKeyUsage)
		}
	}
}

// RFC 9483 §3.5: sender and senderKID name the protection certificate, or the secret.
func TestSender(t *testing.T) {
	e := newEnv(t)
	own, lamp := e.enrolled("lamp-1"), e.register("lamp-2", 9)
	// The same key under another name, and under the same name with another key identifier.
	renamed := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "lamp-9"}, SubjectKeyId: own.crt.SubjectKeyId}, nil, own.key.Public(), own.key)
	rekeyed := issue(t, &x509.Certificate{Subject: own.crt.Subject, SubjectKeyId: []byte("another")}, nil, own.key.Public(), own.key)
	shown := func(first *x509.Certificate) []byte {
		m := e.sent(own, e.kurFor("lamp-1"))
		m.ExtraCerts = [][]byte{first.Raw}
		return must[[]byte](t)(m.Marshal())
	}
	withoutKID := func(reference string) []byte { // protected anew, as clients do that know no senderKID
		m := e.message(requests(cmp.IR, crmf(t, "lamp-2", newKey(t), nil)))
		m.Header.Sender = cmp.CommonName(reference)
		nameless := must[*cmp.MAC](t)(cmp.NewMAC(nil, lamp.secret, cmp.MACParams{}))
		return e.protected(m, party{mac: nameless})
	}
	for _, c := range []struct {
		name string
		raw  []byte
		want cmp.FailInfo
	}{
		{"sender and senderKID of the certificate", shown(own.crt), 0},
		{"the sender is not the certificate's subject", shown(renamed), cmp.BadMessageCheck},
		{"the senderKID is not the certificate's", shown(rekeyed), cmp.BadMessageCheck},
		{"RFC 9483 §4.1.5 the reference in the sender alone", withoutKID(string(lamp.mac.Reference())), 0},
		{"RFC 9483 §4.1.5 another reference in the sender alone", withoutKID("nobody"), cmp.BadMessageCheck},
	} {
		if got := status(e.post("", c.raw)); got.FailInfo != c.want || got.Status.Granted() != (c.want == 0) {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}

// RFC 9483 §3.5: what the grammar and the algorithms forbid.
func TestFormat(t *testing.T) {
	e := newEnv(t)
	own, lamp := e.enrolled("lamp-1"), e.register("lamp-2", 9)
	raw := e.sent(lamp, requests(cmp.IR, crmf(t, "lamp-2", newKey(t), nil))).Raw()
	utc := bytes.Replace(raw, []byte("\xa0\x11\x18\x0f20"), []byte("\xa0\x11\x17\x0f20"), 1)
	if bytes.Equal(utc, raw) {
		t.Fatal("messageTime is not where it was")
	}
	if got := status(e.post("", utc)).FailInfo; got != cmp.BadDataFormat {
		t.Errorf("§3.5 UTCTime in messageTime: %s", got)
	}
	unknown := e.sent(own, e.kurFor("lamp-1"))
	unknown.Header.ProtectionAlg = cmp.Algorithm{OID: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}} // SHA-1 with RSA
	if got := status(e.post("", must[[]byte](t)(unknown.Marshal()))).FailInfo; got != cmp.BadAlg {
		t.Errorf("§3.5 protectionAlg: %s", got)
	}
	csr := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1"}}, newKey(t)))
	csr[len(csr)-1] ^= 1
	if got := status(e.ask(e.message(&cmp.PKCS10{Request: csr}), own)).FailInfo; got != cmp.BadPOP {
		t.Errorf("§4.1.4 p10cr with a wrong signature: %s", got)
	}
}

// RFC 9483 §3.1: the profile in the header is the one that counts, for genm too.
func TestCertProfile(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	two := cmp.CertProfile("device")
	two.Value = must[[]byte](t)(asn1.Marshal([]string{"device", "gateway"}))
	for i := range two.Value {
		if two.Value[i] == asn1.TagPrintableString {
			two.Value[i] = asn1.TagUTF8String
		}
	}
	if got := status(e.ask(e.message(e.kurFor("lamp-1"), two), own)).FailInfo; got != cmp.BadRequest {
		t.Errorf("two profiles: %s", got)
	}
	if cert := e.certificate(e.ask(e.message(e.kurFor("lamp-1"), cmp.CertProfile("gateway"), cmp.ImplicitConfirm()), own)); len(cert.ExtKeyUsage) != 2 {
		t.Errorf("not of profile gateway: %v", cert.ExtKeyUsage)
	}
	question := must[cmp.Info](t)((*cmp.CertReqTemplate)(nil).Info())
	if got := status(e.ask(e.message(&cmp.General{Infos: cmp.Infos{question}}, cmp.CertProfile("nosuch")), own)).FailInfo; got != cmp.BadRequest && got != cmp.NotAuthorized {
		t.Errorf("certReqTemplate of a profile that is not there: %s", got)
	}
	if _, ok := e.ask(e.message(&cmp.General{Infos: cmp.Infos{question}}, cmp.CertProfile("gateway")), own).Body.(*cmp.General); !ok {
		t.Error("no certReqTemplate of profile gateway")
	}
}

// RFC 9483 §3.1, RFC 9810 §5.3.18: hashAlg in certConf is for pvno 3.
func TestHashAlg(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	sha384 := cmp.Algorithm{OID: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}}
	for _, c := range []struct {
		name    string
		version int
		alg     cmp.Algorithm
		want    cmp.FailInfo
	}{
		{"pvno 3", cmp.CMP2021, sha384, 0},
		{"pvno 2", cmp.CMP2000, sha384, cmp.BadRequest},
		{"another hash", cmp.CMP2021, cmp.Algorithm{OID: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}}, cmp.BadAlg},
	} {
		answer := e.ask(e.message(e.kurFor("lamp-1")), own)
		hash := make([]byte, 48)
		if c.want != cmp.BadAlg {
			hash = must[[]byte](t)(cmp.CertHash(e.certificate(answer).Raw, c.alg))
		}
		conf := cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{{CertHash: hash, HashAlg: c.alg}}}, e.now())
		conf.Header.Version = c.version
		if reply := e.ask(conf, own); status(reply).FailInfo != c.want || (reply.Body.Type() == cmp.PKIConf) != (c.want == 0) {
			t.Errorf("%s: %s %v", c.name, reply.Body.Type(), status(reply))
		}
	}
}

// RFC 9483 §4.1.4: what was asked for by p10cr is confirmed with certReqId -1; clients say 0, too.
func TestConfirmP10CR(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	for id, want := range map[int64]cmp.BodyType{-1: cmp.PKIConf, 0: cmp.PKIConf, 1: cmp.ErrorMsg} {
		csr := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1"}}, newKey(t)))
		answer := e.ask(e.message(&cmp.PKCS10{Request: csr}), own)
		conf := cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](t)(cmp.Confirmation(e.certificate(answer).Raw, id, nil))}}, e.now())
		if reply := e.ask(conf, own); reply.Body.Type() != want {
			t.Errorf("%d: %s %v", id, reply.Body.Type(), status(reply))
		}
	}
}
