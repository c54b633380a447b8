package cmp

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestProtectBySignature(t *testing.T) {
	h := hierarchy()
	roots := x509.NewCertPool()
	roots.AddCert(h.root.cert)
	for _, c := range []struct {
		name string
		who  party
		pss  bool
		alg  string
	}{
		{"ECDSA P-256", h.ec, false, "ECDSA with SHA-256"},
		{"ECDSA P-384", h.p384, false, "ECDSA with SHA-384"},
		{"RSA PKCS#1", h.rsa, false, "RSA with SHA-256"},
		{"RSA PSS", h.rsa, true, "RSASSA-PSS"},
		{"Ed25519", h.ed, false, "Ed25519"},
	} {
		t.Run(c.name, func(t *testing.T) {
			signer := must[*Signer](t)(NewSigner(c.who.key, c.who.cert, SignerOptions{
				PSS: c.pss, Chain: []*x509.Certificate{h.issuing.cert, h.root.cert}}))
			m := NewRequest(&Confirm{}, HeaderOptions{Time: noon})
			m.ExtraCerts = [][]byte{h.root.cert.Raw, h.issuing.cert.Raw}
			if err := m.Protect(signer); err != nil {
				t.Fatal(err)
			}
			// RFC 9483 §3.3: protection certificate, its chain, the rest.
			want := [][]byte{c.who.cert.Raw, h.issuing.cert.Raw, h.root.cert.Raw}
			for i, w := range want {
				if !bytes.Equal(m.ExtraCerts[i], w) {
					t.Errorf("extraCerts[%d] is another", i)
				}
			}
			got, err := Parse(m.Raw())
			if err != nil {
				t.Fatal(err)
			}
			if len(got.ExtraCerts) != 3 || !bytes.Equal(got.Header.SenderKID, c.who.cert.SubjectKeyId) {
				t.Errorf("%d extraCerts, senderKID %q", len(got.ExtraCerts), got.Header.SenderKID)
			}
			if name := oidName(got.Header.ProtectionAlg.OID); name != c.alg {
				t.Errorf("signed with %s", name)
			}
			v, err := got.Verify(VerifyOptions{Trust: TrustRoots(roots, at(noon))})
			if err != nil {
				t.Fatal(err)
			}
			if !v.Certificate.Equal(c.who.cert) {
				t.Error("another certificate")
			}
		})
	}
}

func TestNewSignerRefuses(t *testing.T) {
	h := hierarchy()
	if _, err := NewSigner(h.ec.key, h.ed.cert, SignerOptions{}); err == nil {
		t.Error("a certificate of another key")
	}
}

// TestGenericValidation has the rules of RFC 9483 §3.5, each under its section.
func TestGenericValidation(t *testing.T) {
	h := hierarchy()
	roots := x509.NewCertPool()
	roots.AddCert(h.issuing.cert)
	trust := TrustRoots(roots, at(noon))
	mac := must[*MAC](t)(NewMAC([]byte("ref"), []byte("secret"), MACParams{}))
	signer := must[*Signer](t)(NewSigner(h.ec.key, h.ec.cert, SignerOptions{}))
	bare := must[*Signer](t)(NewSigner(h.ec.key, h.ec.cert, SignerOptions{WithoutCerts: true}))
	secret := func([]byte) ([]byte, error) { return []byte("secret"), nil }
	all := VerifyOptions{Trust: trust, Secret: secret}
	header := func(f func(*Header)) func(*Message) { return func(m *Message) { f(&m.Header) } }
	rules := func(r HeaderRules) VerifyOptions { o := all; o.Header = r; return o }
	window := HeaderRules{Now: at(noon), TimeWindow: time.Minute}

	for _, c := range []struct {
		name   string
		body   Body
		change func(*Message)
		by     Protector
		o      VerifyOptions
		want   FailInfo
	}{
		{"§3.1 pvno 2", &General{}, nil, mac, all, 0},
		{"§3.1 pvno 3", &General{}, header(func(h *Header) { h.Version = 3 }), mac, all, 0},
		{"§3.5 pvno 1", &General{}, header(func(h *Header) { h.Version = 1 }), mac, all, UnsupportedVersion},
		{"§3.5 pvno 4", &General{}, header(func(h *Header) { h.Version = 4 }), mac, all, UnsupportedVersion},
		{"§3.5 no transactionID", &General{}, header(func(h *Header) { h.TransactionID = nil }), mac, all, BadDataFormat},
		{"§3.5 transactionID without end", &General{}, header(func(h *Header) { h.TransactionID = make([]byte, 65) }), mac, all, BadDataFormat},
		{"§3.5 no senderNonce", &General{}, header(func(h *Header) { h.SenderNonce = nil }), mac, all, BadSenderNonce},
		{"§3.5 senderNonce of 120 bits", &General{}, header(func(h *Header) { h.SenderNonce = make([]byte, 15) }), mac, all, BadSenderNonce},
		{"§3.1 first with recipNonce", &General{}, header(func(h *Header) { h.RecipNonce = make([]byte, 16) }), mac, rules(HeaderRules{First: true}), BadRecipientNonce},
		{"§3.1 first", &General{}, nil, mac, rules(HeaderRules{First: true}), 0},
		{"§3.5 no recipNonce", &General{}, nil, mac, rules(HeaderRules{RecipNonces: [][]byte{{1}}}), BadRecipientNonce},
		{"§3.5 another recipNonce", &General{}, header(func(h *Header) { h.RecipNonce = []byte{2} }), mac, rules(HeaderRules{RecipNonces: [][]byte{{1}}}), BadRecipientNonce},
		{"§3.5 second recipNonce", &General{}, header(func(h *Header) { h.RecipNonce = []byte{2} }), mac, rules(HeaderRules{RecipNonces: [][]byte{{1}, {2}}}), 0},
		{"§3.1 another transactionID", &General{}, nil, mac, rules(HeaderRules{TransactionID: []byte{1}}), BadRequest},
		{"§3.5 messageTime early", &General{}, header(func(h *Header) { h.Time = noon.Add(-61 * time.Second) }), mac, rules(window), BadTime},
		{"§3.5 messageTime late", &General{}, header(func(h *Header) { h.Time = noon.Add(61 * time.Second) }), mac, rules(window), BadTime},
		{"§3.5 messageTime near", &General{}, header(func(h *Header) { h.Time = noon.Add(59 * time.Second) }), mac, rules(window), 0},
		{"§3.5 messageTime absent, not needed", &General{}, header(func(h *Header) { h.Time = time.Time{} }), mac, rules(window), 0},
		{"§3.5 messageTime absent, needed", &General{}, header(func(h *Header) { h.Time = time.Time{} }), mac, rules(HeaderRules{RequireTime: true}), BadTime},
		{"§3.5 unprotected", &General{}, nil, nil, all, BadMessageCheck},
		{"§3.5 MAC not accepted", &General{}, nil, mac, VerifyOptions{Trust: trust}, WrongIntegrity},
		{"§3.5 signature not accepted", &General{}, nil, signer, VerifyOptions{Secret: secret}, WrongIntegrity},
		{"§3.5 zero options, MAC", &General{}, nil, mac, VerifyOptions{}, WrongIntegrity},
		{"§3.5 zero options, signature", &General{}, nil, signer, VerifyOptions{}, WrongIntegrity},
		{"§4.1.3 MAC on kur", &CertRequests{Of: KUR, Requests: []*CertReqMsg{{}}}, nil, mac, all, WrongIntegrity},
		{"§4.2 MAC on rr", &Revocations{}, nil, mac, all, WrongIntegrity},
		{"§5.2.2 MAC on nested", &NestedMessages{Messages: []*Message{NewRequest(&General{}, HeaderOptions{})}}, nil, mac, all, WrongIntegrity},
		{"§3.5 wrong secret", &General{}, nil, mac, VerifyOptions{Secret: func([]byte) ([]byte, error) { return []byte("other"), nil }}, BadMessageCheck},
		{"§3.5 signed", &General{}, nil, signer, all, 0},
		{"§3.3 no extraCerts, unknown", &General{}, nil, bare, all, BadMessageCheck},
		{"§3.3 no extraCerts, known", &General{}, nil, bare, VerifyOptions{Trust: trust, Known: []*x509.Certificate{h.ed.cert, h.ec.cert}}, 0},
		{"§3.3 not first", &General{}, func(m *Message) { m.ExtraCerts = [][]byte{h.issuing.cert.Raw, h.ec.cert.Raw} }, bare, all, BadMessageCheck},
		{"§3.3 not first, any order", &General{}, func(m *Message) { m.ExtraCerts = [][]byte{h.issuing.cert.Raw, h.ec.cert.Raw} }, bare, VerifyOptions{Trust: trust, AnyOrder: true}, 0},
		{"§3.3 extraCerts are no certificates", &General{}, func(m *Message) { m.ExtraCerts = [][]byte{{0x30, 0}} }, bare, all, BadMessageCheck},
		{"§3.5 untrusted", &General{}, nil, signer, VerifyOptions{Trust: TrustRoots(x509.NewCertPool(), at(noon))}, SignerNotTrusted},
		{"§3.5 expired", &General{}, nil, signer, VerifyOptions{Trust: TrustRoots(roots, at(noon.AddDate(31, 0, 0)))}, SignerNotTrusted},
		{"§3.5 not authorised", &General{}, nil, signer, VerifyOptions{Trust: func(*x509.Certificate, []*x509.Certificate) error {
			return refuse(NotAuthorized, "", "x")
		}}, NotAuthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewRequest(c.body, HeaderOptions{Time: noon})
			if c.change != nil {
				c.change(m)
			}
			if c.by == nil {
				m = must[*Message](t)(Parse(must[[]byte](t)(m.Marshal())))
			} else {
				if err := m.Protect(c.by); err != nil {
					t.Fatal(err)
				}
				m = must[*Message](t)(Parse(m.Raw()))
			}
			_, err := m.Verify(c.o)
			if c.want == NotAuthorized {
				if e, ok := errors.AsType[*Error](err); !ok || e.Info != NotAuthorized {
					t.Fatalf("got %v", err)
				}
				return
			}
			checkInfo(t, err, c.want)
		})
	}
}

// TestSenderIsSigner: RFC 9483 §3.5, sender and senderKID name the certificate.
func TestSenderIsSigner(t *testing.T) {
	h := hierarchy()
	sig, alg, err := signatureFor(h.ec.key.Public(), false)
	if err != nil {
		t.Fatal(err)
	}
	noSign := *h.ec.cert
	noSign.KeyUsage = x509.KeyUsageKeyAgreement
	for _, c := range []struct {
		name   string
		sender GeneralName
		kid    []byte
		cert   *x509.Certificate
		want   FailInfo
	}{
		{"as it should be", DirectoryName(h.ec.cert.RawSubject), h.ec.cert.SubjectKeyId, h.ec.cert, 0},
		{"no senderKID", DirectoryName(h.ec.cert.RawSubject), nil, h.ec.cert, 0},
		{"other string type and case", CommonName("EC"), nil, h.ec.cert, 0},
		{"another name", CommonName("other"), h.ec.cert.SubjectKeyId, h.ec.cert, BadMessageCheck},
		{"NULL-DN", NullName(), nil, h.ec.cert, BadMessageCheck},
		{"a DNS name", append([]byte{0x82, 2}, "ec"...), nil, h.ec.cert, BadMessageCheck},
		{"another senderKID", DirectoryName(h.ec.cert.RawSubject), []byte("x"), h.ec.cert, BadMessageCheck},
		{"key usage", DirectoryName(h.ec.cert.RawSubject), nil, &noSign, BadMessageCheck},
		{"certificate of another", DirectoryName(h.ed.cert.RawSubject), nil, h.ed.cert, BadAlg},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewRequest(&General{}, HeaderOptions{})
			m.Header.Sender, m.Header.SenderKID, m.Header.ProtectionAlg = c.sender, c.kid, alg
			if err := m.seal(func(part []byte) ([]byte, error) { return sig.sign(h.ec.key, part) }); err != nil {
				t.Fatal(err)
			}
			checkInfo(t, m.VerifyCertificate(c.cert), c.want)
		})
	}
}

func TestMACParams(t *testing.T) {
	salt := []byte("saltsaltsaltsalt")
	policy := MACPolicy{MinIterations: 1}
	for _, c := range []struct {
		name   string
		params MACParams
	}{
		{"PBM default", MACParams{}},
		{"PBM SHA-1", MACParams{OWF: crypto.SHA1, MAC: crypto.SHA1, Salt: salt}},
		{"PBM SHA-224", MACParams{OWF: crypto.SHA224, MAC: crypto.SHA224}},
		{"PBM SHA-384", MACParams{OWF: crypto.SHA384, MAC: crypto.SHA384}},
		{"PBM SHA-512 once", MACParams{OWF: crypto.SHA512, MAC: crypto.SHA512, Iterations: 1}},
		{"PBM empty salt", MACParams{Salt: []byte{}}},
		{"PBMAC1 default", MACParams{Kind: PBMAC1}},
		{"PBMAC1 SHA-1", MACParams{Kind: PBMAC1, OWF: crypto.SHA1, MAC: crypto.SHA1, KeyLength: 20}},
		{"PBMAC1 SHA-512", MACParams{Kind: PBMAC1, OWF: crypto.SHA512, MAC: crypto.SHA512, KeyLength: 16}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := must[*MAC](t)(NewMAC([]byte("ref"), []byte("secret"), c.params))
			m := NewRequest(&General{}, HeaderOptions{})
			if err := m.Protect(k); err != nil {
				t.Fatal(err)
			}
			m = must[*Message](t)(Parse(m.Raw()))
			if string(m.Reference()) != "ref" || m.Header.Sender.CommonName() != "ref" {
				t.Errorf("sent by %s", m.Header.Sender)
			}
			again, err := m.VerifyMAC([]byte("secret"), policy)
			if err != nil {
				t.Fatal(err)
			}
			reply := Reply(m, &Confirm{}, noon)
			if err := reply.Protect(again); err != nil {
				t.Fatal(err)
			}
			if err := k.Verify(must[*Message](t)(Parse(reply.Raw()))); err != nil {
				t.Error(err)
			}
			_, err = m.VerifyMAC([]byte("Secret"), policy)
			checkInfo(t, err, BadMessageCheck)
		})
	}
}

// TestPBMAC1Key has the PBKDF2 vector of RFC 7914 §11.
func TestPBMAC1Key(t *testing.T) {
	key := must[[]byte](t)(MACParams{Kind: PBMAC1, OWF: crypto.SHA256, Salt: []byte("salt"), Iterations: 1, KeyLength: 64}.derive([]byte("passwd")))
	want := "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc" +
		"49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"
	if hex.EncodeToString(key) != want {
		t.Errorf("%x", key)
	}
}

func TestMACPolicy(t *testing.T) {
	alg := func(p MACParams) Algorithm { return must[*MAC](t)(NewMAC(nil, nil, p)).alg }
	// params encodes without deriving.
	params := func(p MACParams) Algorithm {
		p.Salt, p.OWF, p.MAC = []byte("salt"), cmp.Or(p.OWF, crypto.SHA256), cmp.Or(p.MAC, crypto.SHA256)
		p.KeyLength, p.Iterations = cmp.Or(p.KeyLength, p.MAC.Size()), cmp.Or(p.Iterations, 1000)
		return must[Algorithm](t)(p.algorithm())
	}
	counted := func(count string) Algorithm {
		a := alg(MACParams{Iterations: 256})
		n := must[[]byte](t)(hex.DecodeString(count))
		// The count is 02 02 01 00; the SEQUENCE grows with it.
		a.Params = bytes.Replace(a.Params, []byte{2, 2, 1, 0}, n, 1)
		a.Params[1] += byte(len(n) - 4)
		return a
	}
	for _, c := range []struct {
		name string
		alg  Algorithm
		want FailInfo
	}{
		{"100 rounds", alg(MACParams{Iterations: 100}), 0},
		{"99 rounds", alg(MACParams{Iterations: 99}), BadAlg},
		{"as much work as may be", params(MACParams{Iterations: DefaultMaxWork, OWF: crypto.SHA1}), 0},
		{"one round more", params(MACParams{Iterations: DefaultMaxWork + 1, OWF: crypto.SHA1}), BadAlg},
		{"as much work as may be with a long hash", params(MACParams{Iterations: DefaultMaxWork / 3, OWF: crypto.SHA512}), 0},
		{"one round more with a long hash", params(MACParams{Iterations: DefaultMaxWork/3 + 1, OWF: crypto.SHA512}), BadAlg},
		{"PBMAC1 as common clients have it", params(MACParams{Kind: PBMAC1, Iterations: 262_144}), 0},
		{"PBMAC1 as common clients have it, SHA-512", params(MACParams{Kind: PBMAC1, Iterations: 262_144, OWF: crypto.SHA512, MAC: crypto.SHA512}), 0},
		{"PBMAC1 with one round more, SHA-512", params(MACParams{Kind: PBMAC1, Iterations: 262_145, OWF: crypto.SHA512, MAC: crypto.SHA512}), BadAlg},
		{"PBMAC1 with a key of two blocks", params(MACParams{Kind: PBMAC1, Iterations: DefaultMaxWork / 4, MAC: crypto.SHA512}), 0},
		{"PBMAC1 with a key of two blocks and one round more", params(MACParams{Kind: PBMAC1, Iterations: DefaultMaxWork/4 + 1, MAC: crypto.SHA512}), BadAlg},
		{"PBMAC1 with a key longer than its hashes", params(MACParams{Kind: PBMAC1, KeyLength: 33}), BadAlg},
		{"PBMAC1 with a key of 13 blocks", params(MACParams{Kind: PBMAC1, Iterations: 100_000, OWF: crypto.SHA1, KeyLength: 256}), BadAlg},
		{"PBMAC1 with a key of 2^31 octets", params(MACParams{Kind: PBMAC1, KeyLength: 1<<31 - 1}), BadAlg},
		{"a billion rounds", counted("02043b9aca00"), BadAlg},
		{"2^64 rounds", counted("0209010000000000000000"), BadAlg},
		{"minus one round", counted("0201ff"), BadAlg},
		{"PBMAC1 of 99 rounds", alg(MACParams{Kind: PBMAC1, Iterations: 99}), BadAlg},
		{"PBMAC1 with a key of 15 octets", alg(MACParams{Kind: PBMAC1, KeyLength: 15}), BadAlg},
		{"PBMAC1 with a key of 300 octets", alg(MACParams{Kind: PBMAC1, KeyLength: 300}), BadAlg},
		{"no parameters", Algorithm{OID: oidPBM}, BadDataFormat},
		{"NULL", Algorithm{OID: oidPBMAC1, Params: derNull}, BadDataFormat},
		{"not a MAC", Algorithm{OID: oidPSS}, BadAlg},
		{"unknown OWF", Algorithm{OID: oidPBM, Params: must[[]byte](t)(hex.DecodeString("3016" + "0401aa" + "300406022a03" + "02020100" + "3007" + "06052b81040022"))}, BadAlg},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := MACPolicy{}.ParseMACParams(c.alg)
			checkInfo(t, err, c.want)
		})
	}
}

// TestMACWorkBegins: no key is derived unless Begin lets it, and done follows.
func TestMACWorkBegins(t *testing.T) {
	k := must[*MAC](t)(NewMAC([]byte("ref"), []byte("secret"), MACParams{Kind: PBMAC1, Iterations: 1000}))
	m := NewRequest(&General{}, HeaderOptions{})
	if err := m.Protect(k); err != nil {
		t.Fatal(err)
	}
	var begun, done int64
	policy := MACPolicy{Begin: func(work int64) (func(), error) { begun += work; return func() { done++ }, nil }}
	if _, err := m.VerifyMAC([]byte("secret"), policy); err != nil || begun != 2000 || done != 1 {
		t.Errorf("work of %d, done %d times, %v; want 2000, once", begun, done, err)
	}
	busy := errors.New("busy")
	policy.Begin = func(int64) (func(), error) { return nil, busy }
	if _, err := m.VerifyMAC([]byte("secret"), policy); err != busy {
		t.Errorf("error %v, want that of Begin", err)
	}
	policy.Begin = func(int64) (func(), error) { t.Error("work on parameters that are refused"); return nil, busy }
	policy.MaxWork = 1999
	_, err := m.VerifyMAC([]byte("secret"), policy)
	checkInfo(t, err, BadAlg)
}

// TestMACParamsFixed: the parameters stay the same within a transaction (RFC 9810
// §5.1.3.1), so others are refused without deriving anything.
func TestMACParamsFixed(t *testing.T) {
	a := must[*MAC](t)(NewMAC([]byte("ref"), []byte("secret"), MACParams{}))
	b := must[*MAC](t)(NewMAC([]byte("ref"), []byte("secret"), MACParams{}))
	m := NewRequest(&General{}, HeaderOptions{})
	if err := m.Protect(b); err != nil {
		t.Fatal(err)
	}
	checkInfo(t, a.Verify(m), BadMessageCheck)
	checkInfo(t, b.Verify(m), 0)
}

func TestVerifyNeedsParsing(t *testing.T) {
	m := NewRequest(&General{}, HeaderOptions{})
	k := must[*MAC](t)(NewMAC(nil, nil, MACParams{}))
	m.Header.ProtectionAlg, m.Protection = k.alg, []byte{1}
	checkInfo(t, k.Verify(m), BadMessageCheck)
}

func TestReply(t *testing.T) {
	req := NewRequest(&General{}, HeaderOptions{Recipient: CommonName("CA")})
	req.Header.Sender = CommonName("device")
	other := NewRequest(&General{}, HeaderOptions{})
	if len(req.Header.TransactionID) != 16 || len(req.Header.SenderNonce) != 16 || req.Header.RecipNonce != nil ||
		bytes.Equal(req.Header.TransactionID, other.Header.TransactionID) || bytes.Equal(req.Header.SenderNonce, other.Header.SenderNonce) {
		t.Error("first header")
	}
	r := Reply(req, &Confirm{}, noon)
	if !bytes.Equal(r.Header.TransactionID, req.Header.TransactionID) || !bytes.Equal(r.Header.RecipNonce, req.Header.SenderNonce) ||
		bytes.Equal(r.Header.SenderNonce, req.Header.SenderNonce) || !bytes.Equal(r.Header.Recipient, req.Header.Sender) || !r.Header.Time.Equal(noon) {
		t.Errorf("%+v", r.Header)
	}
	for version, want := range map[int]int{1: 2, 2: 2, 3: 3, 4: 3, 99: 3} {
		req.Header.Version = version
		if got := Reply(req, &Confirm{}, noon).Header.Version; got != want {
			t.Errorf("to pvno %d: %d", version, got)
		}
	}
	e := ReplyError(req, refuse(BadTime, "s", "late"), noon).Body.(*ErrorBody)
	if e.Status.FailInfo != BadTime {
		t.Error(e.Status)
	}
	n := NewNested(HeaderOptions{}, req)
	if !bytes.Equal(n.Header.TransactionID, req.Header.TransactionID) || !bytes.Equal(n.Header.SenderNonce, req.Header.SenderNonce) {
		t.Error("RFC 9483 §5.2.2.1: one message lends its transactionID and senderNonce")
	}
	if n := NewNested(HeaderOptions{}, req, other); bytes.Equal(n.Header.TransactionID, req.Header.TransactionID) {
		t.Error("RFC 9483 §5.2.2.2: a batch has its own transactionID")
	}
}

// TestVersion: RFC 9483 §3.1, pvno 3 only for what needs it.
func TestVersion(t *testing.T) {
	bodies := sampleBodies(t)
	for name, want := range map[string]int{"ir": 2, "cr": 3, "kur": 3, "ip": 3, "cp": 3, "kup": 2, "certConf": 3, "popdecc": 3, "genm": 2, "rr": 2} {
		if got := NewRequest(bodies[name], HeaderOptions{}).Header.Version; got != want {
			t.Errorf("%s: pvno %d", name, got)
		}
	}
}

func TestCertHash(t *testing.T) {
	h := hierarchy()
	for _, c := range []struct {
		name string
		who  party
		alg  Algorithm
		size int
	}{
		{"by signature, SHA-256", h.ed, Algorithm{}, 32},
		{"by hashAlg", h.ed, Algorithm{OID: oidOfHash(crypto.SHA384)}, 48},
	} {
		hash, err := CertHash(c.who.cert.Raw, c.alg)
		if err != nil || len(hash) != c.size {
			t.Errorf("%s: %d octets, %v", c.name, len(hash), err)
		}
	}
	signedByEd := certify("x", h.ec.key, &h.ed, false)
	want := sha512.Sum512(signedByEd.cert.Raw)
	s, err := Confirmation(signedByEd.cert.Raw, 0, nil)
	if err != nil || !bytes.Equal(s.CertHash, want[:]) || !s.Accepted() {
		t.Errorf("RFC 9481 §3.3: SHA-512 for Ed25519: %x, %v", s.CertHash, err)
	}
	checkInfo(t, s.Matches(signedByEd.cert.Raw), 0)
	checkInfo(t, s.Matches(h.ec.cert.Raw), BadCertID)
	_, err = CertHash(signedByEd.cert.Raw, Algorithm{OID: oidSHA1})
	checkInfo(t, err, BadAlg)
	_, err = CertHash([]byte{0x30, 0}, Algorithm{})
	checkInfo(t, err, BadDataFormat)
}

func TestPSSParams(t *testing.T) {
	s := signature{kind: kindPSS, hash: crypto.SHA384, salt: 48}
	got, err := signatureOf(pssAlgorithm(s))
	if err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	for name, params := range map[string][]byte{
		"none":        nil,
		"NULL":        derNull,
		"all default": {0x30, 0},
		"salt 0":      pssAlgorithm(signature{kind: kindPSS, hash: crypto.SHA256}).Params,
	} {
		_, err := signatureOf(Algorithm{OID: oidPSS, Params: params})
		if e, ok := errors.AsType[*Error](err); !ok || e.Info != BadAlg {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, sha1 := range []string{"1.2.840.113549.1.1.5", "1.2.840.10045.4.1"} {
		var known bool
		for _, a := range signatureAlgs {
			known = known || a.oid.String() == sha1
		}
		if known || !strings.Contains(oidNames[sha1], "SHA-1") {
			t.Errorf("%s", sha1)
		}
	}
}

func TestNewMACRefuses(t *testing.T) {
	for name, p := range map[string]MACParams{
		"SHA-3":            {OWF: crypto.SHA3_256},
		"PBMAC1 and SHA-3": {Kind: PBMAC1, OWF: crypto.SHA3_256},
		"HMAC-MD5":         {MAC: crypto.MD5},
		"another kind":     {Kind: 7},
		"minus one round":  {Iterations: -1},
		"a long salt":      {Salt: make([]byte, maxSalt+1)},
	} {
		if _, err := NewMAC(nil, nil, p); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

// TestReplyTypes: RFC 9483 §4 and RFC 9810 §5.3, what answers what.
func TestReplyTypes(t *testing.T) {
	for asked, want := range map[BodyType]BodyType{IR: IP, CR: CP, P10CR: CP, KUR: KUP, KRR: KRP, CCR: CCP, RR: RP, GenM: GenP,
		CertConf: PKIConf, Nested: Nested, PollReq: PollRep, POPDecC: POPDecR, IP: ErrorMsg, ErrorMsg: ErrorMsg} {
		if got := asked.Reply(); got != want {
			t.Errorf("%s is answered by %s, not %s", asked, got, want)
		}
	}
	if BodyType(27).String() != "body 27" || BodyType(-1).String() != "body -1" || Status(9).String() != "status 9" {
		t.Error("names of the unknown")
	}
	if !Accepted.Granted() || !GrantedWithMods.Granted() || Rejection.Granted() || Waiting.Granted() {
		t.Error("Granted")
	}
}

func TestRand(t *testing.T) {
	raw, err := Rand{big.NewInt(1 << 40), CommonName("CA")}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRand(raw)
	if err != nil || got.Int.Int64() != 1<<40 || got.Sender.CommonName() != "CA" {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = ParseRand(raw[:len(raw)-1])
	checkInfo(t, err, BadDataFormat)
	if _, err := (Rand{}).Marshal(); err == nil {
		t.Error("a Rand without its integer")
	}
}
