package est

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"errors"
	"slices"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

func wrapped(tag asn1.Tag, parts ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(slices.Concat(parts...)) })
	return b.BytesOrPanic()
}

// aCRMF is the content of a good CertReqMsg.
func aCRMF(t testing.TB, extra ...[]byte) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := encasn1.Marshal(pkix.Name{CommonName: "lamp-1"}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	spki[0] = 0xa6
	constructed := func(n uint8, parts ...[]byte) []byte {
		return wrapped(asn1.Tag(n).ContextSpecific().Constructed(), parts...)
	}
	notAfter := constructed(1, []byte("\x17\x0d301231235959Z"))
	san := wrapped(asn1.SEQUENCE, []byte("\x06\x03\x55\x1d\x11"), wrapped(asn1.OCTET_STRING, wrapped(asn1.SEQUENCE, wrapped(asn1.Tag(2).ContextSpecific(), []byte("lamp-1")))))
	usage := wrapped(asn1.SEQUENCE, []byte("\x06\x03\x55\x1d\x0f\x01\x01\xff"), wrapped(asn1.OCTET_STRING, []byte{3, 2, 7, 128}))
	template := wrapped(asn1.SEQUENCE, []byte{0x80, 1, 2}, constructed(3, subject), constructed(4, notAfter), constructed(5, subject), spki, constructed(9, slices.Concat(append([][]byte{san, usage}, extra...)...)))
	certReq := wrapped(asn1.SEQUENCE, []byte{2, 1, 1}, template)
	digest := sha256.Sum256(certReq)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	algorithm := wrapped(asn1.SEQUENCE, []byte("\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"))
	return slices.Concat(certReq, constructed(1, algorithm, wrapped(asn1.BIT_STRING, []byte{0}, signature)))
}

func TestParseCRMF(t *testing.T) {
	csr, notAfter, witness, err := parseCRMF(aCRMF(t))
	if err != nil {
		t.Fatal(err)
	}
	if csr.Names.CommonName() != "lamp-1" || len(csr.Names.SANs) != 1 || csr.Names.SANs[0] != (ca.SAN{Form: "dns", Value: "lamp-1"}) || witness != nil {
		t.Errorf("names %+v, witness %x", csr.Names, witness)
	}
	if got := notAfter.Format("2006-01-02T15:04:05Z07:00"); got != "2030-12-31T23:59:59Z" {
		t.Errorf("notAfter %s", got)
	}
	if spki, err := x509.MarshalPKIXPublicKey(csr.PublicKey); err != nil || string(spki) != string(csr.SPKI) {
		t.Errorf("the key is %x, %v", csr.SPKI, err)
	}
	twice := wrapped(asn1.SEQUENCE, []byte("\x06\x03\x55\x1d\x11"), wrapped(asn1.OCTET_STRING, wrapped(asn1.SEQUENCE)))
	if _, _, _, err := parseCRMF(aCRMF(t, twice)); ca.KindOf(err) != ca.Malformed {
		t.Errorf("two subjectAltNames: %v", err)
	}
}

func aProof(secret string, message []byte) []byte {
	algorithm := func(oid encasn1.ObjectIdentifier) []byte {
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid); b.AddASN1NULL() })
		return b.BytesOrPanic()
	}
	key := sha256.Sum256([]byte(secret))
	m := hmac.New(sha256.New, key[:])
	m.Write(message)
	return wrapped(asn1.SEQUENCE, algorithm(macs[0].hash), algorithm(macs[0].hmac), wrapped(asn1.OCTET_STRING, m.Sum(nil)))
}

func FuzzParseProof(f *testing.F) {
	f.Add(aProof("secret", []byte("message")))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := parseProof(in)
		if err != nil {
			return
		}
		if p.holds(device.Secret("another"), nil, []byte("message")) {
			t.Fatalf("forged: %x", in)
		}
	})
}

// A PKIData reads to one request within bounds, or to a fault that says which.
func FuzzParsePKIData(f *testing.F) {
	empty := wrapped(asn1.SEQUENCE)
	control := func(part byte, number byte, value []byte) []byte {
		return wrapped(asn1.SEQUENCE, []byte{2, 1, part}, []byte("\x06\x08\x2b\x06\x01\x05\x05\x07\x07"), []byte{number}, wrapped(asn1.SET, value))
	}
	controls := wrapped(asn1.SEQUENCE, control(50, cmcTransactionID, []byte{2, 1, 7}), control(51, cmcSenderNonce, []byte{4, 1, 7}),
		control(52, cmcIdentityProofV2, aProof("x", nil)), control(53, cmcIdentification, []byte("\x0c\x01x")), control(54, cmcPOPLinkRandom, []byte{4, 1, 7}))
	crm := wrapped(asn1.Tag(1).ContextSpecific().Constructed(), aCRMF(f))
	f.Add(wrapped(asn1.SEQUENCE, controls, wrapped(asn1.SEQUENCE, crm), empty, empty))
	for _, v := range vectors(f) {
		if der, err := decodeRequest(v); err == nil {
			tcr := wrapped(asn1.Tag(0).ContextSpecific().Constructed(), []byte{2, 1, 1}, der)
			f.Add(wrapped(asn1.SEQUENCE, empty, wrapped(asn1.SEQUENCE, tcr), empty, empty))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		data, err := parsePKIData(in)
		if err != nil {
			if _, ok := errors.AsType[*fault](err); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if data.part == 0 || (data.pkcs10 == nil) == (data.crmf == nil) || len(data.controls) > 5 {
			t.Fatalf("%+v", data)
		}
		if _, err := data.transaction(); err != nil {
			if _, ok := errors.AsType[*fault](err); !ok {
				t.Fatalf("%T: %v", err, err)
			}
		}
		if csr, _, _, err := data.request(); err == nil && len(csr.SPKI) == 0 {
			t.Fatal("a request without key")
		} else if err != nil {
			if s := refuse(err).status; s != 400 {
				t.Fatalf("status %d: %v", s, err)
			}
		}
	})
}
