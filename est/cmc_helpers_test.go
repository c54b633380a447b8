package est_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/cms"
)

// pkiMessage is a Full PKI Request in the making; a test changes what it wants wrong.
type pkiMessage struct {
	controls [][]byte
	requests [][]byte
	messages []byte
	signer   cms.Signer
}

func build(f cryptobyte.BuilderContinuation) []byte {
	var b cryptobyte.Builder
	f(&b)
	return b.BytesOrPanic()
}

func sequence(parts ...[]byte) []byte {
	return build(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(slices.Concat(parts...)) })
	})
}

func octetString(value []byte) []byte {
	return build(func(b *cryptobyte.Builder) { b.AddASN1OctetString(value) })
}

func utf8String(value string) []byte {
	return build(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
	})
}

func integer(n int64) []byte {
	return build(func(b *cryptobyte.Builder) { b.AddASN1Int64(n) })
}

func cmcOID(n int) encasn1.ObjectIdentifier {
	return encasn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 7, n}
}

func cmcControl(part int64, oid encasn1.ObjectIdentifier, values ...[]byte) []byte {
	return build(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(part)
			b.AddASN1ObjectIdentifier(oid)
			b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(slices.Concat(values...)) })
		})
	})
}

func tagged(tag uint8, parts ...[]byte) []byte {
	return build(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.Tag(tag).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(slices.Concat(parts...)) })
	})
}

func tcr(part int64, csr []byte) []byte { return tagged(0, integer(part), csr) }

var (
	oidSHA256     = encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidHMACSHA256 = encasn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidSHA1       = encasn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
)

func algorithmOf(oid encasn1.ObjectIdentifier) []byte {
	return build(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) })
	})
}

// witness is IdentityProofV2 or PopLinkWitnessV2.
func witness(secret, suffix string, message []byte) []byte {
	key := sha256.Sum256([]byte(secret + suffix))
	m := hmac.New(sha256.New, key[:])
	m.Write(message)
	return sequence(algorithmOf(oidSHA256), algorithmOf(oidHMACSHA256), octetString(m.Sum(nil)))
}

// prove adds the identity proof over the requests as they stand.
func (m *pkiMessage) prove(reference, secret string) {
	m.controls = append(m.controls, cmcControl(101, cmcOID(2), utf8String(reference)),
		cmcControl(102, cmcOID(34), witness(secret, reference, sequence(m.requests...))))
}

func (m *pkiMessage) data() []byte {
	return sequence(sequence(m.controls...), sequence(m.requests...), sequence(m.messages), sequence())
}

func (m *pkiMessage) seal(t testing.TB) []byte {
	t.Helper()
	signed, err := cms.Sign(cms.Content{Type: cms.OID{1, 3, 6, 1, 5, 5, 7, 12, 2}, Bytes: m.data()}, m.signer)
	if err != nil {
		t.Fatal(err)
	}
	return signed.Info()
}

// byKey signs with a key that has no certificate.
func byKey(key crypto.Signer) cms.Signer {
	return cms.Signer{Key: key, ID: cms.ID{KeyID: []byte("new")}}
}

func byCertificate(t testing.TB, id identity) cms.Signer {
	t.Helper()
	cert, err := x509.ParseCertificate(id.cert.DER)
	if err != nil {
		t.Fatal(err)
	}
	return cms.Signer{Key: id.key, ID: cms.IDOf(cert), Certs: [][]byte{id.cert.DER}}
}

// pkiAnswer is a Full PKI Response that was read and whose signature is the responder's.
type pkiAnswer struct {
	status   int64
	parts    []int64
	fail     int64 // -1 for none
	says     string
	controls map[string][]byte // value by OID
	certs    []*x509.Certificate
}

func (e *env) pkiAnswer(t testing.TB, r result) pkiAnswer {
	t.Helper()
	r.wantHeader(t, "Content-Type", "application/pkcs7-mime; smime-type=CMC-response")
	r.wantHeader(t, "Cache-Control", "no-store")
	der, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(r.body, "\n"))
	if err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	info, err := cms.ParseInfo(der)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := cms.ParseSigned(info)
	if err != nil {
		t.Fatal(err)
	}
	signer := signed.SignerCert()
	if signer == nil || signer.CheckSignatureFrom(e.root) != nil || signed.Verify(signer.PublicKey) != nil || signed.Content.Type.String() != "1.3.6.1.5.5.7.12.3" {
		t.Fatalf("not a PKIResponse of the responder: %v", signed.Content.Type)
	}
	a := pkiAnswer{fail: -1, controls: map[string][]byte{}}
	for _, raw := range signed.Certs {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		if !cert.Equal(signer) {
			a.certs = append(a.certs, cert)
		}
	}
	var response struct{ Controls, Messages, Others []encasn1.RawValue }
	if rest, err := encasn1.Unmarshal(signed.Content.Bytes, &response); err != nil || len(rest) != 0 || len(response.Messages)+len(response.Others) != 0 {
		t.Fatalf("PKIResponse: %v", err)
	}
	for i, raw := range response.Controls {
		var c struct {
			Part   int64
			Type   encasn1.ObjectIdentifier
			Values []encasn1.RawValue `asn1:"set"`
		}
		if rest, err := encasn1.Unmarshal(raw.FullBytes, &c); err != nil || len(rest) != 0 || len(c.Values) != 1 || c.Part != int64(i+1) {
			t.Fatalf("a control: %v", err)
		}
		a.controls[c.Type.String()] = c.Values[0].FullBytes
	}
	var status struct {
		Status int64
		Parts  []int64
		Says   string `asn1:"optional,utf8"`
		Fail   int64  `asn1:"optional,default:-1"`
	}
	if rest, err := encasn1.Unmarshal(a.controls["1.3.6.1.5.5.7.7.25"], &status); err != nil || len(rest) != 0 {
		t.Fatalf("CMCStatusInfoV2: %v", err)
	}
	a.status, a.parts, a.says = status.Status, status.Parts, status.Says
	if status.Status == 2 {
		a.fail = status.Fail
	}
	return a
}

// cmc sends a Full PKI Request.
func (e *env) cmc(t testing.TB, path string, msg []byte) result {
	t.Helper()
	return e.do(t, call{path: path, body: base64Body(msg), contentType: "application/pkcs7-mime; smime-type=CMC-request"})
}

// wantIssued checks a success.
func (e *env) wantIssued(t testing.TB, r result, key crypto.Signer, part int64) pkiAnswer {
	t.Helper()
	if r.status != http.StatusOK {
		a := e.pkiAnswer(t, r)
		t.Fatalf("status %d: %+v", r.status, a)
	}
	a := e.pkiAnswer(t, r)
	if a.status != 0 || !slices.Equal(a.parts, []int64{part}) {
		t.Errorf("answer %+v", a)
	}
	if !slices.ContainsFunc(a.certs, func(c *x509.Certificate) bool { return samePublic(key, c) && c.Subject.CommonName == "lamp-1" }) {
		t.Errorf("no certificate for the key among %d", len(a.certs))
	}
	return a
}

// certReq is a CertRequest (RFC 4211 §5), crm a CertReqMsg that proves possession.
func certReq(t testing.TB, pub crypto.PublicKey, id string, controls ...[]byte) []byte {
	t.Helper()
	subject, err := encasn1.Marshal(pkix.Name{CommonName: id}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	template := tagged(5, subject)
	if pub != nil {
		spki, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		spki[0] = 0xa6
		template = append(template, spki...)
	}
	parts := [][]byte{integer(1), sequence(template)}
	if len(controls) > 0 {
		parts = append(parts, sequence(controls...))
	}
	return sequence(parts...)
}

func crm(t testing.TB, key crypto.Signer, certReq []byte, more ...[]byte) []byte {
	t.Helper()
	digest := sha256.Sum256(certReq)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	bits := build(func(b *cryptobyte.Builder) { b.AddASN1BitString(signature) })
	popo := tagged(1, algorithmOf(encasn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}), bits)
	return tagged(1, append([][]byte{certReq, popo}, more...)...)
}
