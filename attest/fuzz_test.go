package attest

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-tpm/tpm2"
)

// seeds adds real samples, and checks that there are some.
func seeds(f *testing.F, pattern string, add func([]byte)) {
	names, err := filepath.Glob("testdata/" + pattern)
	if err != nil || len(names) == 0 {
		f.Fatal("no seeds: ", pattern, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		add(data)
	}
}

func FuzzParseObject(f *testing.F) {
	seeds(f, "*.attobj.cbor", func(b []byte) { f.Add(b) })
	f.Add([]byte{0xa2, 0x63, 'f', 'm', 't', 0x63, 't', 'p', 'm', 0x67, 'a', 't', 't', 'S', 't', 'm', 't', 0xa0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := ParseObject(raw)
		if err != nil {
			if !errors.Is(err, ErrEvidence) {
				t.Error(err)
			}
			return
		}
		if err := cbor.Wellformed(o.Statement); err != nil || o.Format == "" {
			t.Errorf("%+v %v", o, err)
		}
	})
}

// Nobody but the AK's owner makes a statement that verifies: whatever is fed in is refused, without panic.
func FuzzTPM(f *testing.F) {
	seeds(f, "*.attobj.cbor", func(b []byte) {
		o, err := ParseObject(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(o.Statement, []byte(nil))
		st, err := parseTPMStatement(o.Statement)
		if err != nil {
			f.Fatal(err)
		}
		st.X5C = st.X5C[:1] // without the certificate that crypto/x509 does not read
		raw, err := cbor.Marshal(st)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, []byte{0xa0})
	})
	root, err := x509.ParseCertificate(read(f, "ek/gcp_ek_ak_ca_root.crt"))
	if err != nil {
		f.Fatal(err)
	}
	s := Statement{Challenge: []byte("challenge"), Now: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), Anchors: []Anchor{{"google", []*x509.Certificate{root}, nil}}}
	f.Fuzz(func(t *testing.T, raw, quote []byte) {
		s := s
		s.Raw, s.Quote = raw, quote
		if result, err := TPM().Verify(s); result != nil || !errors.Is(err, ErrEvidence) {
			t.Errorf("%+v %v", result, err)
		}
	})
}

// A quote by nobody is refused; and beyond the signature, where it holds whatever the AK's owner
// wants, one that is taken has the PCRs of the boot.
func FuzzTPMQuote(f *testing.F) {
	raw, err := cbor.Marshal(tpmQuote{Version: 1, Alg: -257, Quoted: cbor.ByteString(read(f, "keylime/quote.out")), Sig: cbor.ByteString(read(f, "keylime/quotesig.out")),
		PCRs: map[uint64]cbor.ByteString{0: "zero"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	challenge := []byte("challenge")
	f.Add(quoteOfZeros(f, challenge))
	key := rsaOf(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if q, err := verifyQuote(raw, key, challenge); q != nil || err == nil {
			t.Errorf("%+v %v", q, err)
		}
		var q tpmQuote
		if decodeCBOR(raw, &q) != nil {
			return
		}
		if result, err := q.judge(crypto.SHA256, challenge); err == nil && (len(result.pcrs) < bootPCRs || result.pcrs[0] != int64(0) || len(result.digest) != 64) {
			t.Errorf("%+v", result)
		}
	})
}

// quoteOfZeros is a quote for the challenge that is good but for its signature.
func quoteOfZeros(t testing.TB, challenge []byte) []byte {
	sized := func(b []byte) []byte { return append([]byte{0, byte(len(b))}, b...) }
	zeros := make([]byte, crypto.SHA256.Size())
	q := tpmQuote{Version: 1, Alg: -7, Sig: "s", PCRs: map[uint64]cbor.ByteString{}}
	for i := range uint64(bootPCRs) {
		q.PCRs[i] = cbor.ByteString(zeros)
	}
	quoted := slices.Concat([]byte("\xffTCG\x80\x18"), sized(nil), sized(sum(crypto.SHA256, challenge)), make([]byte, 8+4+4), []byte{1}, make([]byte, 8),
		[]byte("\x00\x00\x00\x01\x00\x0b\x03\xff\x00\x00"), sized(sum(crypto.SHA256, bytes.Repeat(zeros, bootPCRs))))
	q.Quoted = cbor.ByteString(quoted)
	if _, err := q.judge(crypto.SHA256, challenge); err != nil {
		t.Fatal("the seed: ", err)
	}
	out, err := cbor.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What is read as a TPMS_ATTEST, go-tpm reads alike, and writes back octet for octet.
func FuzzParseAttest(f *testing.F) {
	f.Add(read(f, "keylime/quote.out"))
	f.Add(read(f, "azure-vtpm/tpm-quote.msg"))
	seeds(f, "*.attobj.cbor", func(b []byte) {
		st := statementOf(f, b)
		f.Add([]byte(st.CertInfo))
	})
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parseAttest(raw)
		if err != nil {
			return
		}
		b, err := tpm2.Unmarshal[tpm2.TPMSAttest](raw)
		if err != nil {
			t.Fatalf("%x: go-tpm does not read it: %v", raw, err)
		}
		if !bytes.Equal(tpm2.Marshal(b), raw) || uint16(b.Type) != a.kind || !bytes.Equal(b.ExtraData.Buffer, a.extraData) {
			t.Errorf("%x: go-tpm reads %+v", raw, b)
		}
		if a.kind == attestCertify {
			certify, err := b.Attested.Certify()
			if err != nil || !bytes.Equal(certify.Name.Buffer, a.name) {
				t.Errorf("%x: %+v %v", raw, certify, err)
			}
		}
	})
}

// What is read as a TPMT_PUBLIC and may be a device's key, go-tpm reads alike, with the same name and key.
func FuzzParsePublic(f *testing.F) {
	seeds(f, "*.attobj.cbor", func(b []byte) {
		st := statementOf(f, b)
		pubArea := []byte(st.PubArea)
		f.Add(pubArea)
		pubArea = bytes.Clone(pubArea)
		pubArea[5] &^= 2 // decrypt
		f.Add(pubArea)
	})
	f.Add([]byte("\x00\x23\x00\x0b\x00\x04\x00\x72\x00\x00\x00\x10\x00\x10\x00\x03\x00\x10\x00\x01\x01\x00\x01\x02"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := parsePublic(raw)
		if err != nil || p.mayIdentify() != nil {
			return
		}
		key, err := p.key()
		if err != nil {
			return
		}
		q, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
		if err != nil {
			t.Fatalf("%x: go-tpm does not read it: %v", raw, err)
		}
		name, err := tpm2.ObjectName(q)
		if err != nil || !bytes.Equal(name.Buffer, p.name) || !bytes.Equal(tpm2.Marshal(q), raw) {
			t.Errorf("%x: go-tpm names it %x, %v", raw, name, err)
		}
		other, err := tpm2.Pub(*q)
		if err != nil || !key.(interface{ Equal(crypto.PublicKey) bool }).Equal(other) {
			t.Errorf("%x: go-tpm reads key %v, %v", raw, other, err)
		}
	})
}

func FuzzParseAKNames(f *testing.F) {
	seeds(f, "*.attobj.cbor", func(b []byte) {
		st := statementOf(f, b)
		cert, err := x509.ParseCertificate([]byte(st.X5C[0]))
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range cert.Extensions {
			if e.Id.Equal(oidSubjectAltName) {
				f.Add(e.Value)
			}
		}
	})
	for _, name := range []string{
		"\xa0\x0e\x06\x08\x2b\x06\x01\x05\x05\x07\x08\x03\xa0\x02\x30\x00",                                 // PermanentIdentifier without value
		"\xa0\x12\x06\x08\x2b\x06\x01\x05\x05\x07\x08\x03\xa0\x06\x30\x04\x06\x02\x2a\x03",                 // with an assigner alone
		"\xa0\x16\x06\x08\x2b\x06\x01\x05\x05\x07\x08\x04\xa0\x0a\x30\x08\x06\x02\x2a\x03\x04\x02\x00\xff", // HardwareModuleName with a binary serial number
	} {
		f.Add(append([]byte{0x30, byte(len(name))}, name...))
	}
	f.Fuzz(func(t *testing.T, san []byte) {
		ak, err := parseAKNames(san)
		if err == nil && (ak.manufacturer == "" || ak.model == "" || ak.version == "") {
			t.Errorf("%x: %+v", san, ak)
		}
	})
}

func statementOf(f *testing.F, object []byte) *tpmStatement {
	o, err := ParseObject(object)
	if err != nil {
		f.Fatal(err)
	}
	st, err := parseTPMStatement(o.Statement)
	if err != nil {
		f.Fatal(err)
	}
	return st
}
