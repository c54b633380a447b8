package attest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/deviceca/deviceca/attest"
	"github.com/deviceca/deviceca/internal/attesttest"
)

// forger makes statements with an AK in software, which an authority certified all the
// same: whatever is refused here is refused although every signature is good.
type forger struct {
	t         testing.TB
	authority *attesttest.Authority
	ak        crypto.Signer
	device    *ecdsa.PrivateKey
	alg       int64
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newForger(t testing.TB, ak crypto.Signer, alg int64) *forger {
	f := &forger{t: t, authority: must(attesttest.NewAuthority("Acme"))(t), ak: ak, alg: alg}
	if ak == nil {
		f.ak = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	}
	f.device = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	return f
}

// forged is a statement in parts, each of which a test may spoil before it is put together.
type forged struct {
	*forger
	akCertificate func(*x509.Certificate)
	identifier    string
	pub           pubArea
	magic         uint32
	kind          uint16
	extraData     []byte
	name          []byte // nil: that of pub
	signedBy      crypto.Signer
	hash          crypto.Hash // 0: of alg
	st            attesttest.Attestation
	chain         func([]*x509.Certificate) []*x509.Certificate

	quote forgedQuote
	after func(*attest.Statement)
}

type forgedQuote struct {
	send      bool
	extraData []byte
	kind      uint16
	bank      uint16
	bitmap    uint32
	banks     []byte // nil: of bank and bitmap
	digest    []byte // nil: of q.PCRs
	q         attesttest.Quote
	signedBy  crypto.Signer
}

// pubArea is TPMT_PUBLIC in parts.
type pubArea struct {
	kind, nameAlg uint16
	attributes    uint32
	parameters    []byte
	unique        []byte
	tail          []byte
}

const (
	goodAttributes = 0x00040072 // sign, fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth
	algNull        = "\x00\x10"
	p256           = "\x00\x03"
)

func (p *pubArea) encode() []byte {
	out := binary.BigEndian.AppendUint16(nil, p.kind)
	out = binary.BigEndian.AppendUint16(out, p.nameAlg)
	out = binary.BigEndian.AppendUint32(out, p.attributes)
	return slices.Concat(out, attesttest.Sized(nil), p.parameters, p.unique, p.tail)
}

func (p *pubArea) name() []byte {
	digest := sha256.Sum256(p.encode())
	return append([]byte{0, 0x0b}, digest[:]...)
}

func eccPub(key *ecdsa.PublicKey) pubArea {
	point, err := key.Bytes()
	if err != nil {
		panic(err)
	}
	n := (len(point) - 1) / 2
	return pubArea{kind: 0x23, nameAlg: 0x0b, attributes: goodAttributes, parameters: []byte(algNull + algNull + p256 + algNull),
		unique: slices.Concat(attesttest.Sized(point[1:1+n]), attesttest.Sized(point[1+n:]))}
}

func rsaPub(n *big.Int, bits uint16, exponent uint32) pubArea {
	parameters := binary.BigEndian.AppendUint16([]byte(algNull+algNull), bits)
	return pubArea{kind: 1, nameAlg: 0x0b, attributes: goodAttributes,
		parameters: binary.BigEndian.AppendUint32(parameters, exponent), unique: attesttest.Sized(n.Bytes())}
}

func (f *forger) hashOf(data []byte) []byte {
	h := map[int64]crypto.Hash{-7: crypto.SHA256, -35: crypto.SHA384, -36: crypto.SHA512, -37: crypto.SHA256, -38: crypto.SHA384,
		-39: crypto.SHA512, -257: crypto.SHA256, -258: crypto.SHA384, -259: crypto.SHA512}[f.alg]
	if h == 0 {
		h = crypto.SHA256
	}
	d := h.New()
	d.Write(data)
	return d.Sum(nil)
}

// forge puts a statement together after edit has spoilt it.
func (f *forger) forge(edit func(*forged)) attest.Statement {
	challenge := []byte(keyAuthorization)
	sha := sha256.Sum256(challenge)
	v := &forged{forger: f, identifier: "sensor-17", pub: eccPub(&f.device.PublicKey), magic: 0xff544347, kind: 0x8017, extraData: f.hashOf(challenge),
		signedBy: f.ak, st: attesttest.Attestation{Version: "2.0", Alg: f.alg},
		quote: forgedQuote{extraData: sha[:], kind: 0x8018, bank: 0x0b, bitmap: 0xff, signedBy: f.ak,
			q: attesttest.Quote{Version: 1, Alg: f.alg, PCRs: map[uint64][]byte{}}}}
	for i := range uint64(8) {
		v.quote.q.PCRs[i] = slices.Repeat([]byte{byte(i)}, 32)
	}
	if edit != nil {
		edit(v)
	}
	if v.akCertificate == nil {
		v.akCertificate = func(*x509.Certificate) {}
	}
	chain := must(f.authority.Issue(f.ak.Public(), v.identifier, v.akCertificate))(f.t)
	if v.chain != nil {
		chain = v.chain(chain)
	}
	if v.name == nil {
		v.name = v.pub.name()
	}
	if v.st.X5C == nil {
		for _, c := range chain {
			v.st.X5C = append(v.st.X5C, c.Raw)
		}
	}
	if v.st.PubArea == nil {
		v.st.PubArea = v.pub.encode()
	}
	if v.st.CertInfo == nil {
		v.st.CertInfo = attesttest.TPMSAttest(v.magic, v.kind, v.extraData, slices.Concat(attesttest.Sized(v.name), attesttest.Sized(v.name)))
	}
	if v.st.Sig == nil {
		v.st.Sig = must(attesttest.SignBy(v.signedBy, v.st.Alg, v.hash, v.st.CertInfo))(f.t)
	}
	s := attest.Statement{Raw: v.st.Encode(), Challenge: challenge, Now: time.Now(),
		Anchors: []attest.Anchor{{Manufacturer: "acme", Certificates: []*x509.Certificate{f.authority.Root}}}}
	if v.quote.send {
		s.Quote = v.encodeQuote()
	}
	if v.after != nil {
		v.after(&s)
	}
	return s
}

func (v *forged) encodeQuote() []byte {
	quote := &v.quote
	if quote.digest == nil {
		var values []byte
		for i := range uint64(32) {
			values = append(values, quote.q.PCRs[i]...)
		}
		quote.digest = v.hashOf(values)
	}
	if quote.banks == nil {
		quote.banks = attesttest.PCRSelection(quote.bank, quote.bitmap)
	}
	if quote.q.Quoted == nil {
		quote.q.Quoted = attesttest.TPMSAttest(0xff544347, quote.kind, quote.extraData, slices.Concat(quote.banks, attesttest.Sized(quote.digest)))
	}
	if quote.q.Sig == nil {
		quote.q.Sig = must(attesttest.SignBy(quote.signedBy, quote.q.Alg, 0, quote.q.Quoted))(v.t)
	}
	return quote.q.Encode()
}

func withSAN(extension pkix.Extension) func(*forged) {
	return func(v *forged) {
		v.akCertificate = func(c *x509.Certificate) { c.ExtraExtensions[0] = extension }
	}
}

func certificate(edit func(*x509.Certificate)) func(*forged) {
	return func(v *forged) { v.akCertificate = edit }
}

func attributes(bits uint32) func(*forged) { return func(v *forged) { v.pub.attributes = bits } }

func parameters(s string) func(*forged) { return func(v *forged) { v.pub.parameters = []byte(s) } }

// Every check of the statement, failed in turn, and what it says.
// excluded are name constraints, not critical, that exclude the subtree of one GeneralName.
func excluded(name []byte) pkix.Extension {
	wrap := func(tag byte, in []byte) []byte { return append([]byte{tag, byte(len(in))}, in...) }
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Value: wrap(0x30, wrap(0xa1, wrap(0x30, name)))}
}

func TestTPMRefuses(t *testing.T) {
	f := newForger(t, nil, -7)
	if _, err := attest.TPM().Verify(f.forge(nil)); err != nil {
		t.Fatal("the statement that all others spoil: ", err)
	}
	foreign := must(attesttest.NewAuthority("Acme"))(t) // of the same name
	stranger := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	strangersPub := eccPub(&stranger.PublicKey)
	p521 := must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))(t)
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	directory := attesttest.DirectoryName("id:00001014", "swtpm", "id:20191023")
	for _, c := range []struct {
		name string
		edit func(*forged)
		says string
	}{
		{"no challenge", func(v *forged) { v.after = func(s *attest.Statement) { s.Challenge = nil } }, "a challenge of 1 to"},
		{"no time", func(v *forged) { v.after = func(s *attest.Statement) { s.Now = time.Time{} } }, "time of judgement"},
		{"no anchors", func(v *forged) { v.after = func(s *attest.Statement) { s.Anchors = nil } }, "no manufacturer's anchors"},

		{"version 1.2", func(v *forged) { v.st.Version = "1.2" }, `ver is "1.2"`},
		{"no version", func(v *forged) { v.st.Version = "" }, `ver is ""`},
		{"no certificates", func(v *forged) { v.st.X5C = [][]byte{} }, "x5c has 0 certificates"},
		{"seven certificates", func(v *forged) { v.st.X5C = make([][]byte, 7) }, "x5c has 7 certificates"},
		{"a long certificate", func(v *forged) { v.st.X5C = [][]byte{make([]byte, 8<<10+1)} }, "8193 octets"},
		{"no certificate at all", func(v *forged) { v.st.X5C = [][]byte{{0x30, 0}} }, "x5c certificate 1"},
		{"no sig", func(v *forged) { v.st.Sig = []byte{} }, "sig is missing"},
		{"no certInfo", func(v *forged) { v.st.CertInfo, v.st.Sig = []byte{}, []byte{0} }, "certInfo is missing"},
		{"no pubArea", func(v *forged) { v.st.PubArea = []byte{} }, "pubArea is missing"},
		{"a long pubArea", func(v *forged) { v.st.PubArea = make([]byte, 2<<10+1) }, "pubArea has 2049 octets"},
		{"a long statement", func(v *forged) { v.st.X5C = slices.Repeat([][]byte{make([]byte, 8<<10)}, 5) }, "attStmt of"},

		{"AK of X.509 version 1", func(v *forged) {
			v.chain = func([]*x509.Certificate) []*x509.Certificate { return []*x509.Certificate{version1(t, f)} }
		}, "of version 1"},
		{"subject", certificate(func(c *x509.Certificate) { c.Subject.CommonName = "AK" }), "subject is not empty"},
		{"a CA as AK", certificate(func(c *x509.Certificate) { c.IsCA = true }), "it is a CA's"},
		{"keyCertSign", certificate(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), "it is a CA's"},
		{"key usage", certificate(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), "lacks digitalSignature"},
		{"no extended key usage", certificate(func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }), "2.23.133.8.3"},
		{"EKU of an EK", certificate(func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{attesttest.OIDEKCertificate} }), "2.23.133.8.3"},
		{"EKU any", certificate(func(c *x509.Certificate) {
			c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		}), "2.23.133.8.3"},
		{"no SAN", certificate(func(c *x509.Certificate) { c.ExtraExtensions = nil }), "has no subjectAltName"},
		{"SAN not critical", withSAN(attesttest.SANOf(false)), "not critical"},
		{"SAN without a TPM", withSAN(attesttest.SAN(true, attesttest.PermanentIdentifier("sensor-17", nil))), "manufacturer, model and version"},
		{"SAN without model", withSAN(attesttest.SAN(true, attesttest.DirectoryName("id:00001014", "", "id:1"))), "not all are there"},
		{"SAN with another vendor ID", withSAN(attesttest.SAN(true, attesttest.DirectoryName("IBM", "swtpm", "id:1"))), `manufacturer is "IBM"`},
		{"SAN with a vendor ID not in hex", withSAN(attesttest.SAN(true, attesttest.DirectoryName("id:0000101g", "swtpm", "id:1"))), "eight hex digits"},
		{"SAN with a long model", withSAN(attesttest.SAN(true, attesttest.DirectoryName("id:00001014", strings.Repeat("x", 65), "id:1"))), "1 to 64 visible"},
		{"SAN with two TPMs", withSAN(attesttest.SAN(true, directory, directory)), "there twice"},
		{"SAN with many names", withSAN(attesttest.SAN(true, slices.Repeat([][]byte{{0x82, 1, 'a'}}, 17)...)), "more than 16 names"},
		{"SAN with many identifiers", withSAN(attesttest.SANOf(true, slices.Repeat([][]byte{attesttest.PermanentIdentifier("a", nil)}, 9)...)), "more than 8 identifiers"},
		{"identifier that is none", withSAN(attesttest.SANOf(true, []byte{0xa0, 16, 6, 8, 0x2b, 6, 1, 5, 5, 7, 8, 3, 0xa0, 4, 0x30, 2, 5, 0})), "not a PermanentIdentifier"},
		{"another critical extension", certificate(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}), "unhandled critical extension"},
		{"directoryName that is none", withSAN(attesttest.SAN(true, []byte{0xa4, 2, 5, 0})), "not a Name"},
		{"RDN that is none", withSAN(attesttest.SAN(true, []byte{0xa4, 4, 0x30, 2, 5, 0})), "not a Name"},
		{"attribute that is none", withSAN(attesttest.SAN(true, []byte{0xa4, 6, 0x30, 4, 0x31, 2, 5, 0})), "not a Name"},
		{"intermediate for servers", func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate {
				return []*x509.Certificate{c[0], reissue(t, f, func(ca *x509.Certificate) { ca.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })}
			}
		}, "confined to purposes"},
		{"intermediate for EKs", func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate {
				return []*x509.Certificate{c[0], reissue(t, f, func(ca *x509.Certificate) {
					ca.UnknownExtKeyUsage = []asn1.ObjectIdentifier{attesttest.OIDEKCertificate}
				})}
			}
		}, "confined to purposes"},
		{"intermediate that is no CA", func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate {
				return []*x509.Certificate{c[0], reissue(t, f, func(ca *x509.Certificate) { ca.IsCA, ca.KeyUsage = false, 0 })}
			}
		}, "does not lead to an anchor"},
		{"intermediate signed by SHA-1", func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate {
				return append(c, must(selfSigned(rsaKey(), x509.SHA1WithRSA))(t))
			}
		}, "x5c certificate 3: it is signed by an algorithm that is not accepted"},
		{"intermediate with a weak key", func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate {
				return append(c, must(selfSigned(weak, x509.SHA256WithRSA))(t))
			}
		}, "RSA of 1024 bits"},
		{"intermediate on P-224", func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate {
				return append(c, must(selfSigned(p224, x509.ECDSAWithSHA256))(t))
			}
		}, "on P-224"},
		{"intermediate that may not name this vendor's TPMs", func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate {
				return []*x509.Certificate{c[0], reissue(t, f, func(ca *x509.Certificate) {
					ca.ExtraExtensions = []pkix.Extension{excluded(attesttest.DirectoryName("id:00001014", "", ""))}
				})}
			}
		}, "breaks the name constraints of CN="},
		{"a weak anchor", func(v *forged) {
			v.after = func(s *attest.Statement) {
				root := *f.authority.Root
				root.PublicKey = weak.Public()
				s.Anchors[0].Certificates = []*x509.Certificate{&root}
			}
		}, "RSA of 1024 bits"},
		{"expired AK", certificate(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), "expired"},
		{"AK not valid yet", certificate(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "not yet valid"},
		{"foreign root", func(v *forged) {
			v.after = func(s *attest.Statement) { s.Anchors[0].Certificates = []*x509.Certificate{foreign.Root} }
		}, "does not lead to an anchor"},
		{"intermediate missing", func(v *forged) { v.chain = func(c []*x509.Certificate) []*x509.Certificate { return c[:1] } }, "intermediate certificate missing"},
		{"intermediate of a foreign root", func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate { return []*x509.Certificate{c[0], foreign.Issuing} }
		}, "does not lead to an anchor"},
		{"the anchor as AK", func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate { return []*x509.Certificate{f.authority.Root} }
		}, "subject is not empty"},

		{"the AK's certificate as anchor", func(v *forged) {
			v.after = func(s *attest.Statement) {
				s.Anchors[0].Certificates = []*x509.Certificate{must(x509.ParseCertificate(v.st.X5C[0]))(t)}
			}
		}, "registered as an anchor itself"},

		{"RS1", func(v *forged) { v.st.Alg, v.st.Sig = -65535, []byte{1} }, "RS1"},
		{"alg none", func(v *forged) { v.st.Alg, v.st.Sig = 0, []byte{1} }, "alg 0 is not one of"},
		{"EdDSA", func(v *forged) { v.st.Alg, v.st.Sig = -8, []byte{1} }, "alg -8 is not one of"},
		{"RS256 by an ECC key", func(v *forged) { v.st.Alg, v.st.Sig = -257, []byte{1} }, "alg is RS256, and the AK's key is ECC"},
		{"another hash than alg's", func(v *forged) { v.hash = crypto.SHA384 }, "does not verify under the AK's key"},
		{"SHA-1 under ES256", func(v *forged) { v.hash = crypto.SHA1 }, "does not verify under the AK's key"},
		{"signed by another key", func(v *forged) { v.signedBy = stranger }, "does not verify under the AK's key"},
		{"signed by the device's key", func(v *forged) { v.signedBy = f.device }, "does not verify under the AK's key"},

		{"magic", func(v *forged) { v.magic = 0xff544348 }, "ff544347"},
		{"certInfo of one octet", func(v *forged) { v.st.CertInfo = []byte{0xff} }, "no TPM made it"},
		{"certInfo cut off", func(v *forged) { v.st.CertInfo = attesttest.TPMSAttest(v.magic, v.kind, v.extraData, nil) }, "not a TPMS_CERTIFY_INFO"},
		{"certInfo cut off before", func(v *forged) { v.st.CertInfo = attesttest.TPMSAttest(v.magic, v.kind, v.extraData, nil)[:40] }, "not a TPMS_ATTEST"},
		{"certInfo that is not safe and not unsafe", func(v *forged) {
			v.st.CertInfo = attesttest.TPMSAttest(v.magic, v.kind, v.extraData, []byte{0, 0, 0, 0})
			v.st.CertInfo[len(v.st.CertInfo)-4-8-1] = 2
		}, "not a TPMS_ATTEST"},
		{"type quote", func(v *forged) { v.kind = 0x8018 }, "certInfo"},
		{"type creation", func(v *forged) { v.kind = 0x801a }, "type 0x801a"},
		{"a quote as certInfo", func(v *forged) {
			v.st.CertInfo = attesttest.TPMSAttest(v.magic, 0x8018, v.extraData, slices.Concat(attesttest.PCRSelection(0x0b, 255), attesttest.Sized(nil)))
		}, "TPM_ST_ATTEST_CERTIFY (0x8017) is due"},
		{"extraData of another challenge", func(v *forged) { v.extraData = f.hashOf([]byte("other")) }, "extraData is not the hash"},
		{"extraData by another hash", func(v *forged) { d := sha512.Sum384([]byte(keyAuthorization)); v.extraData = d[:] }, "extraData is not the hash"},
		{"extraData in clear", func(v *forged) { v.extraData = []byte(keyAuthorization[:64]) }, "extraData is not the hash"},
		{"no extraData", func(v *forged) { v.extraData = nil }, "extraData is not the hash"},
		{"replay in another challenge", func(v *forged) { v.after = func(s *attest.Statement) { s.Challenge = []byte("other") } }, "extraData is not the hash"},
		{"name of another key", func(v *forged) { v.name = strangersPub.name() }, "the names differ"},
		{"name without its algorithm", func(v *forged) { v.name = v.pub.name()[2:] }, "the names differ"},
		{"name of another algorithm", func(v *forged) { v.name = v.pub.name(); v.name[1] = 0x0c }, "the names differ"},
		{"certInfo with a tail", func(v *forged) {
			v.st.CertInfo = append(attesttest.TPMSAttest(v.magic, v.kind, v.extraData, slices.Concat(attesttest.Sized(v.pub.name()), attesttest.Sized(nil))), 0)
		}, "1 octets after its end"},

		{"fixedTPM", attributes(goodAttributes &^ 1 << 1), "fixedTPM is not set"},
		{"fixedParent", attributes(goodAttributes &^ (1 << 4)), "fixedParent is not set"},
		{"sensitiveDataOrigin", attributes(goodAttributes &^ (1 << 5)), "sensitiveDataOrigin is not set"},
		{"sign", attributes(goodAttributes &^ (1 << 18)), "sign is not set"},
		{"restricted", attributes(goodAttributes | 1<<16), "restricted is set"},
		{"decrypt", attributes(goodAttributes | 1<<17), "decrypt is set"},
		{"encryptedDuplication", attributes(goodAttributes | 1<<11), "bits that a device's signing key does not have"},
		{"x509sign", attributes(goodAttributes | 1<<19), "bits that a device's signing key does not have"},
		{"reserved bits", attributes(goodAttributes | 1<<31 | 1), "bits that a device's signing key does not have"},
		{"nameAlg SHA-1", func(v *forged) { v.pub.nameAlg = 4 }, "nameAlg 0x0004"},
		{"symmetric", parameters("\x00\x06\x00\x80\x00\x43" + algNull + p256 + algNull), "symmetric algorithm"},
		{"scheme ECDAA", parameters(algNull + "\x00\x1a\x00\x0b" + p256 + algNull), "none or ECDSA is due"},
		{"scheme ECDSA by SHA-1", parameters(algNull + "\x00\x18\x00\x04" + p256 + algNull), "scheme's hash is 0x0004"},
		{"scheme ECDH", parameters(algNull + "\x00\x19\x00\x0b" + p256 + algNull), "none or ECDSA is due"},
		{"KDF", parameters(algNull + algNull + p256 + "\x00\x22\x00\x0b"), "key derivation"},
		{"curve P-521", parameters(algNull + algNull + "\x00\x05" + algNull), "P-256 or P-384 is due"},
		{"curve P-192", parameters(algNull + algNull + "\x00\x01" + algNull), "P-256 or P-384 is due"},
		{"coordinates of another curve", func(v *forged) { v.pub.unique = eccPub(&p521.PublicKey).unique }, "longer than the curve's"},
		{"point not on the curve", func(v *forged) { v.pub.unique[10] ^= 1 }, "not on the curve"},
		{"point at infinity", func(v *forged) { v.pub.unique = []byte{0, 0, 0, 0} }, "not on the curve"},
		{"a symmetric key", func(v *forged) { v.pub.kind = 0x25 }, "type 0x0025"},
		{"pubArea with a tail", func(v *forged) { v.pub.tail = []byte{0} }, "1 octets after its end"},
		{"RSA-1024", func(v *forged) { v.pub = rsaPub(weak.N, 1024, 0) }, "RSA of 1024 bits"},
		{"RSA of fewer bits than it says", func(v *forged) { v.pub = rsaPub(weak.N, 2048, 0) }, "modulus is not one of 2048 bits"},
		{"RSA with an even modulus", func(v *forged) { v.pub = rsaPub(new(big.Int).Add(rsaKey().N, big.NewInt(1)), 2048, 0) }, "modulus is not one of"},
		{"RSA exponent 3", func(v *forged) { v.pub = rsaPub(rsaKey().N, 2048, 3) }, "exponent 3"},
		{"RSA exponent 1", func(v *forged) { v.pub = rsaPub(rsaKey().N, 2048, 1) }, "exponent 1"},
		{"RSA scheme OAEP", func(v *forged) {
			v.pub = rsaPub(rsaKey().N, 2048, 0)
			v.pub.parameters = []byte(algNull + "\x00\x17\x00\x0b" + "\x08\x00" + "\x00\x00\x00\x00")
		}, "none, RSASSA or RSAPSS"},
	} {
		refused(t, c.name, f.forge(c.edit), c.says)
	}
}

// reissue is the issuing CA's certificate, spoilt.
func reissue(t testing.TB, f *forger, edit func(*x509.Certificate)) *x509.Certificate {
	template := *f.authority.Issuing
	edit(&template)
	der := must(x509.CreateCertificate(rand.Reader, &template, f.authority.Root, f.authority.IssuingKey.Public(), f.authority.RootKey))(t)
	return must(x509.ParseCertificate(der))(t)
}

func selfSigned(key crypto.Signer, by x509.SignatureAlgorithm) (*x509.Certificate, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, SignatureAlgorithm: by}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// An AK's key that no algorithm here is for, or that is weak, although an authority certified it.
func TestTPMRefusesAKs(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ak   crypto.Signer
		alg  int64
		says string
	}{
		{edwards, -7, "the AK's key is a ed25519.PublicKey"},
		{weak, -257, "RSA of 1024 bits"},
		{rsaKey(), -7, "alg is ES256, and the AK's key is RSA"},
		{must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))(t), -7, "on P-224"},
	} {
		refused(t, c.says, newForger(t, c.ak, c.alg).forge(func(v *forged) { v.st.Sig = []byte{1} }), c.says)
	}
}

func TestParseObject(t *testing.T) {
	if format := attest.TPM().Format(); format != "tpm" {
		t.Errorf("format %q", format)
	}
	good := must(attest.ParseObject(attesttest.Object("tpm", []byte{0xa0})))(t)
	if good.Format != "tpm" || string(good.Statement) != "\xa0" || good.AuthData != nil {
		t.Errorf("%+v", good)
	}
	with := func(o map[string]any) []byte { return must(cbor.Marshal(o))(t) }
	for name, c := range map[string]struct {
		raw  []byte
		says string
	}{
		"nothing":              {nil, "not the CBOR"},
		"long":                 {make([]byte, attest.MaxObject+1), "65537 octets"},
		"a tail":               {append(attesttest.Object("tpm", []byte{0xa0}), 0), "not the CBOR"},
		"no format":            {with(map[string]any{"attStmt": map[string]any{}}), "fmt is missing"},
		"no statement":         {with(map[string]any{"fmt": "tpm"}), "attStmt is missing"},
		"an array":             {with(map[string]any{"fmt": "tpm", "attStmt": []int{}}), "not a map"},
		"an unknown key":       {with(map[string]any{"fmt": "tpm", "attStmt": map[string]any{}, "more": 1}), "not the CBOR"},
		"authData as text":     {with(map[string]any{"fmt": "tpm", "attStmt": map[string]any{}, "authData": "text"}), "not the CBOR"},
		"too deep a statement": {with(map[string]any{"fmt": "tpm", "attStmt": map[string]any{"a": []any{[]any{[]any{1}}}}}), "not the CBOR"},
	} {
		if o, err := attest.ParseObject(c.raw); o != nil || !errors.Is(err, attest.ErrEvidence) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v %v", name, o, err)
		}
	}
}

// version1 is a certificate of X.509 version 1 for the AK, which crypto/x509 does not make.
func version1(t testing.TB, f *forger) *x509.Certificate {
	chain := must(f.authority.Issue(f.ak.Public(), "sensor-17"))(t)
	var cert, tbs, rest asn1.RawValue
	if _, err := asn1.Unmarshal(chain[0].Raw, &cert); err != nil {
		t.Fatal(err)
	}
	after := must(asn1.Unmarshal(cert.Bytes, &tbs))(t)
	var kept []byte
	for in := tbs.Bytes; len(in) > 0; {
		in = must(asn1.Unmarshal(in, &rest))(t)
		if rest.Class != asn1.ClassContextSpecific { // version and extensions
			kept = append(kept, rest.FullBytes...)
		}
	}
	seq := func(content []byte) []byte {
		return must(asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: content}))(t)
	}
	return must(x509.ParseCertificate(seq(append(seq(kept), after...))))(t)
}

// bankOf quotes another bank than SHA-256.
func bankOf(hash uint16, size int) func(*forged) {
	return func(v *forged) {
		v.quote.send, v.quote.bank = true, hash
		for i := range v.quote.q.PCRs {
			v.quote.q.PCRs[i] = make([]byte, size)
		}
	}
}

// What is allowed beside the plain case.
func TestTPMAccepts(t *testing.T) {
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	p521 := must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))(t)
	for _, c := range []struct {
		name string
		ak   crypto.Signer
		alg  int64
		edit func(*forged)
	}{
		{"ES256", nil, -7, nil},
		{"ES384", p384, -35, nil},
		{"ES512", p521, -36, nil},
		{"PS256", rsaKey(), -37, nil},
		{"PS384", rsaKey(), -38, nil},
		{"PS512", rsaKey(), -39, nil},
		{"RS256", rsaKey(), -257, nil},
		{"RS384", rsaKey(), -258, nil},
		{"RS512", rsaKey(), -259, nil},
		{"RSA key, exponent 0", nil, -7, func(v *forged) { v.pub = rsaPub(rsaKey().N, 2048, 0) }},
		{"RSA key, exponent 65537", nil, -7, func(v *forged) { v.pub = rsaPub(rsaKey().N, 2048, 65537) }},
		{"RSA key with a scheme", nil, -7, func(v *forged) {
			v.pub = rsaPub(rsaKey().N, 2048, 0)
			v.pub.parameters = []byte(algNull + "\x00\x14\x00\x0b" + "\x08\x00" + "\x00\x00\x00\x00")
		}},
		{"ECC key with a scheme", nil, -7, parameters(algNull + "\x00\x18\x00\x0b" + p256 + algNull)},
		{"P-384 key", nil, -7, func(v *forged) {
			v.pub = eccPub(&p384.PublicKey)
			v.pub.parameters = []byte(algNull + algNull + "\x00\x04" + algNull)
		}},
		{"noDA, stClear, adminWithPolicy", nil, -7, attributes(goodAttributes | 1<<2 | 1<<7 | 1<<10)},
		{"EKU among others", nil, -7, certificate(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}, attesttest.OIDAIKCertificate}
		})},
		{"no key usage, no basicConstraints", nil, -7, certificate(func(c *x509.Certificate) { c.KeyUsage, c.BasicConstraintsValid = 0, false })},
		{"the root in x5c as well", nil, -7, func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate { return append(c, v.authority.Root) }
		}},
		{"the issuing CA as anchor", nil, -7, func(v *forged) {
			v.chain = func(c []*x509.Certificate) []*x509.Certificate { return c[:1] }
			v.after = func(s *attest.Statement) { s.Anchors[0].Certificates = []*x509.Certificate{v.authority.Issuing} }
		}},
		{"authData that means nothing", nil, -7, func(v *forged) { v.after = func(s *attest.Statement) { s.AuthData = []byte("\xff\x00junk") } }},
		{"quote", nil, -7, func(v *forged) { v.quote.send = true }},
		{"quote by RSA", rsaKey(), -257, func(v *forged) { v.quote.send = true }},
		{"quote by ES384", p384, -35, func(v *forged) { v.quote.send = true }},
		{"quote of a SHA-384 bank", nil, -7, bankOf(0x0c, 48)},
		{"quote of a SHA-512 bank", nil, -7, bankOf(0x0d, 64)},
		{"quote of more PCRs", nil, -7, func(v *forged) {
			v.quote.send, v.quote.bitmap, v.quote.q.PCRs[14] = true, 0x40ff, make([]byte, 32)
		}},
	} {
		result, err := attest.TPM().Verify(newForger(t, c.ak, c.alg).forge(c.edit))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if result.Manufacturer != "acme" || len(result.Identifiers) != 1 {
			t.Errorf("%s: %+v", c.name, result)
		}
	}
}

// Signatures in the two forms that are in use, by both kinds of key, and what is neither.
func TestTPMSignatureForms(t *testing.T) {
	wrap := func(scheme, hash uint16, parts ...[]byte) []byte {
		out := binary.BigEndian.AppendUint16(nil, scheme)
		out = binary.BigEndian.AppendUint16(out, hash)
		for _, p := range parts {
			out = append(out, attesttest.Sized(p)...)
		}
		return out
	}
	wrapped := func(v *forged, scheme, hash uint16, tail ...byte) {
		v.st.CertInfo = attesttest.TPMSAttest(v.magic, v.kind, v.extraData, slices.Concat(attesttest.Sized(v.pub.name()), attesttest.Sized(nil)))
		bare := must(attesttest.SignBy(v.ak, v.st.Alg, 0, v.st.CertInfo))(v.t)
		if _, isRSA := v.ak.(*rsa.PrivateKey); isRSA {
			v.st.Sig = append(wrap(scheme, hash, bare), tail...)
			return
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(bare, &rs); err != nil {
			v.t.Fatal(err)
		}
		v.st.Sig = append(wrap(scheme, hash, rs.R.Bytes(), rs.S.Bytes()), tail...)
	}
	ecc, rsa := newForger(t, nil, -7), newForger(t, rsaKey(), -257)
	for _, c := range []struct {
		name string
		f    *forger
		edit func(*forged)
		says string // "" is accepted
	}{
		{"TPMT_SIGNATURE, ECDSA", ecc, func(v *forged) { wrapped(v, 0x18, 0x0b) }, ""},
		{"TPMT_SIGNATURE, RSASSA", rsa, func(v *forged) { wrapped(v, 0x14, 0x0b) }, ""},
		{"scheme of another", ecc, func(v *forged) { wrapped(v, 0x1a, 0x0b) }, "scheme 0x001a"},
		{"hash of another", ecc, func(v *forged) { wrapped(v, 0x18, 0x0c) }, "hash 0x000c"},
		{"hash SHA-1", rsa, func(v *forged) { wrapped(v, 0x14, 0x04) }, "hash 0x0004"},
		{"PSS under RS256", rsa, func(v *forged) { wrapped(v, 0x16, 0x0b) }, "scheme 0x0016"},
		{"ECDSA with a tail", ecc, func(v *forged) { wrapped(v, 0x18, 0x0b, 0) }, "not an ECDSA signature"},
		{"RSASSA with a tail", rsa, func(v *forged) { wrapped(v, 0x14, 0x0b, 0) }, "not an RSA signature"},
		{"RSA too short", rsa, func(v *forged) { v.st.Sig = wrap(0x14, 0x0b, make([]byte, 255)) }, "not an RSA signature"},
		{"ECDSA too long", ecc, func(v *forged) { v.st.Sig = wrap(0x18, 0x0b, make([]byte, 33), []byte{1}) }, "not an ECDSA signature"},
		{"ECDSA of zeros", ecc, func(v *forged) { v.st.Sig = wrap(0x18, 0x0b, nil, nil) }, "does not verify"},
		{"three octets", ecc, func(v *forged) { v.st.Sig = []byte{0, 0x18, 0} }, "not a TPMT_SIGNATURE"},
		{"broken DER", ecc, func(v *forged) { v.st.Sig = []byte{0x30, 0x80} }, "does not verify"},
	} {
		s := c.f.forge(c.edit)
		if c.says == "" {
			if _, err := attest.TPM().Verify(s); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		refused(t, c.name, s, c.says)
	}
}

// Every check of the quote, failed in turn: a bad one refuses a good statement.
func TestTPMRefusesQuotes(t *testing.T) {
	f := newForger(t, nil, -7)
	stranger := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	quote := func(edit func(*forgedQuote)) func(*forged) {
		return func(v *forged) {
			v.quote.send = true
			edit(&v.quote)
		}
	}
	for _, c := range []struct {
		name string
		edit func(*forged)
		says string
	}{
		{"empty", func(v *forged) { v.after = func(s *attest.Statement) { s.Quote = []byte{} } }, "quote: not the CBOR"},
		{"long", func(v *forged) { v.after = func(s *attest.Statement) { s.Quote = make([]byte, 8<<10+1) } }, "8193 octets"},
		{"version", quote(func(q *forgedQuote) { q.q.Version = 2 }), "ver is 2"},
		{"alg of another key", quote(func(q *forgedQuote) { q.q.Alg, q.q.Sig = -257, []byte{1} }), "alg is RS256"},
		{"RS1", quote(func(q *forgedQuote) { q.q.Alg, q.q.Sig = -65535, []byte{1} }), "RS1"},
		{"no sig", quote(func(q *forgedQuote) { q.q.Sig = []byte{} }), "sig has 0 octets"},
		{"nothing quoted", quote(func(q *forgedQuote) { q.q.Quoted, q.q.Sig = []byte{}, []byte{1} }), "quoted has 0 octets"},
		{"by another key", quote(func(q *forgedQuote) { q.signedBy = stranger }), "does not verify under the AK's key"},
		{"by the device's key", quote(func(q *forgedQuote) { q.signedBy = f.device }), "does not verify under the AK's key"},
		{"certify as quote", quote(func(q *forgedQuote) {
			q.q.Quoted = attesttest.TPMSAttest(0xff544347, 0x8017, q.extraData, []byte{0, 0, 0, 0})
		}), "TPM_ST_ATTEST_QUOTE (0x8018) is due"},
		{"magic", quote(func(q *forgedQuote) { q.q.Quoted = attesttest.TPMSAttest(1, 0x8018, q.extraData, nil) }), "ff544347"},
		{"another challenge", quote(func(q *forgedQuote) { q.extraData = f.hashOf([]byte("other")) }), "extraData is not the SHA-256"},
		{"no nonce", quote(func(q *forgedQuote) { q.extraData = nil }), "extraData is not the SHA-256"},
		{"SHA-1 bank", quote(func(q *forgedQuote) { q.bank = 4 }), "bank of hash 0x0004"},
		{"two banks", quote(func(q *forgedQuote) {
			q.banks = append([]byte{0, 0, 0, 2}, slices.Repeat([]byte{0, 0x0b, 3, 0xff, 0, 0}, 2)...)
		}), "2 banks"},
		{"selection cut off", quote(func(q *forgedQuote) { q.q.Quoted = attesttest.TPMSAttest(0xff544347, 0x8018, q.extraData, []byte{0}) }), "TPML_PCR_SELECTION"},
		{"digest cut off", quote(func(q *forgedQuote) {
			q.q.Quoted = attesttest.TPMSAttest(0xff544347, 0x8018, q.extraData, attesttest.PCRSelection(0x0b, 255))
		}), "TPMS_QUOTE_INFO"},
		{"no bank", quote(func(q *forgedQuote) { q.banks = []byte{0, 0, 0, 0} }), "0 banks"},
		{"a wide bitmap", quote(func(q *forgedQuote) { q.banks = []byte{0, 0, 0, 1, 0, 0x0b, 5, 0xff, 0, 0, 0, 0} }), "TPMS_PCR_SELECTION"},
		{"PCR 24", quote(func(q *forgedQuote) {
			q.banks, q.q.PCRs[24] = []byte{0, 0, 0, 1, 0, 0x0b, 4, 0xff, 0, 0, 1}, make([]byte, 32)
		}), "PCR 24"},
		{"PCR 0 not quoted", quote(func(q *forgedQuote) { q.bitmap = 0x1fe; delete(q.q.PCRs, 0); q.q.PCRs[8] = make([]byte, 32) }), "PCRs 0 to 7"},
		{"only what programs reset", quote(func(q *forgedQuote) { q.bitmap = 1 << 16; q.q.PCRs = map[uint64][]byte{16: make([]byte, 32)} }), "PCRs 0 to 7"},
		{"a value too few", quote(func(q *forgedQuote) { delete(q.q.PCRs, 7) }), "8 PCRs are quoted, and pcrs has 7"},
		{"a value too many", quote(func(q *forgedQuote) { q.q.PCRs[9] = make([]byte, 32) }), "pcrs has 9"},
		{"value of another PCR", quote(func(q *forgedQuote) { q.q.PCRs[9] = q.q.PCRs[7]; delete(q.q.PCRs, 7) }), "PCR 7 is quoted"},
		{"values of another bank", quote(func(q *forgedQuote) { q.bank = 0x0c }), "PCR 0 is quoted, and pcrs does not have it with 48 octets"},
		{"value of SHA-1", quote(func(q *forgedQuote) { q.q.PCRs[3] = make([]byte, 20) }), "PCR 3 is quoted"},
		{"other values", quote(func(q *forgedQuote) { q.digest = f.hashOf([]byte("what was measured")) }), "pcrDigest differs"},
	} {
		refused(t, c.name, f.forge(c.edit), c.says)
	}
}

// Nothing in a statement or quote is without a check: flipped bits, each prefix, and a tail, refuse.
func TestTPMEveryOctetCounts(t *testing.T) {
	f := newForger(t, nil, -7)
	good := f.forge(func(v *forged) { v.quote.send = true })
	must(attest.TPM().Verify(good))(t)
	var st attesttest.Attestation
	if err := cbor.Unmarshal(good.Raw, &st); err != nil {
		t.Fatal(err)
	}
	part := func(set func(*attesttest.Attestation, []byte)) func(*attest.Statement, []byte) {
		return func(s *attest.Statement, b []byte) {
			st := st
			set(&st, b)
			s.Raw = st.Encode()
		}
	}
	for _, c := range []struct {
		name string
		in   []byte
		bits int // of each octet; one of them is another at each octet
		put  func(*attest.Statement, []byte)
	}{
		{"statement", good.Raw, 1, func(s *attest.Statement, b []byte) { s.Raw = b }},
		{"quote", good.Quote, 1, func(s *attest.Statement, b []byte) { s.Quote = b }},
		{"certInfo", st.CertInfo, 8, part(func(st *attesttest.Attestation, b []byte) { st.CertInfo = b })},
		{"pubArea", st.PubArea, 8, part(func(st *attesttest.Attestation, b []byte) { st.PubArea = b })},
		{"sig", st.Sig, 8, part(func(st *attesttest.Attestation, b []byte) { st.Sig = b })},
	} {
		refuses := func(what string, at int, spoilt []byte) {
			s := good
			c.put(&s, spoilt)
			if _, err := attest.TPM().Verify(s); !errors.Is(err, attest.ErrEvidence) {
				t.Fatalf("%s: %s at octet %d of %d: %v", c.name, what, at, len(c.in), err)
			}
		}
		for i := range c.in {
			for bit := range c.bits {
				spoilt := slices.Clone(c.in)
				spoilt[i] ^= 1 << ((i + bit) % 8)
				refuses("a bit flipped", i, spoilt)
			}
			refuses("cut off", i, append([]byte{}, c.in[:i]...)) // never nil: that is a quote which was not sent
		}
		refuses("an octet more", len(c.in), append(slices.Clone(c.in), 0))
	}
}

// CBOR that is not what is due, or that is a bomb.
func TestTPMRefusesCBOR(t *testing.T) {
	f := newForger(t, nil, -7)
	good := f.forge(nil)
	var fields map[string]any
	if err := cbor.Unmarshal(good.Raw, &fields); err != nil {
		t.Fatal(err)
	}
	with := func(key string, value any) []byte {
		changed := map[string]any{}
		for k, v := range fields {
			changed[k] = v
		}
		changed[key] = value
		return must(cbor.Marshal(changed))(t)
	}
	// head is a map of one more pair than good.Raw, which has six.
	head := slices.Concat([]byte{0xa7}, good.Raw[1:])
	for name, raw := range map[string][]byte{
		"nothing":                {},
		"null":                   {0xf6},
		"an array":               {0x80},
		"an empty map":           {0xa0},
		"a key twice":            slices.Concat(head, []byte("\x63alg"), []byte{0x26}),
		"an unknown key":         slices.Concat(head, []byte("\x6aecdaaKeyId"), []byte{0x40}),
		"a key in another case":  slices.Concat(head, []byte("\x63ALG"), []byte{0x26}),
		"a key of octets":        slices.Concat(head, []byte("\x43alg"), []byte{0x26}),
		"a key that is a number": slices.Concat(head, []byte{0x01, 0x26}),
		"indefinite map":         slices.Concat([]byte{0xbf}, good.Raw[1:], []byte{0xff}),
		"tagged":                 slices.Concat([]byte{0xd9, 0xd9, 0xf7}, good.Raw),
		"ver of another type":    with("ver", 2),
		"alg in text":            with("alg", "ES256"),
		"alg as a fraction":      with("alg", -7.5),
		"alg beyond 64 bits":     with("alg", new(big.Int).Lsh(big.NewInt(1), 70)),
		"sig in text":            with("sig", "sig"),
		"sig as numbers":         with("sig", []int{48, 1}),
		"x5c not an array":       with("x5c", fields["x5c"].([]any)[0]),
		"x5c of texts":           with("x5c", []string{"a"}),
		"certInfo null":          with("certInfo", nil),
		"deep":                   slices.Concat([]byte{0xa1, 0x63, 'v', 'e', 'r'}, slices.Repeat([]byte{0x81}, 5000), []byte{0}),
		"array of 2^32":          {0xa1, 0x63, 'x', '5', 'c', 0x9a, 0xff, 0xff, 0xff, 0xff},
		"octets of 2^63":         {0xa1, 0x63, 's', 'i', 'g', 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"map of 2^64":            {0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"x5c of 17":              with("x5c", slices.Repeat([][]byte{{0}}, 17)),
		"text not UTF-8":         with("ver", cbor.RawMessage{0x62, 0xff, 0xfe}),
	} {
		s := good
		s.Raw = raw
		refused(t, name, s, "tpm: ")
	}
}

// Each manufacturer stands by itself.
func TestTPMManufacturers(t *testing.T) {
	f := newForger(t, nil, -7)
	other := must(attesttest.NewAuthority("Other"))(t)
	s := f.forge(nil)
	// The AK's issuer is an anchor of nobody; that other's certificates lead nowhere does not help.
	s.Anchors = []attest.Anchor{{Manufacturer: "other", Certificates: []*x509.Certificate{other.Root, other.Issuing}}}
	refused(t, "right root under nobody", s, "does not lead to an anchor")
	s.Anchors = append(s.Anchors, attest.Anchor{Manufacturer: "acme", Certificates: []*x509.Certificate{f.authority.Root}})
	if result, err := attest.TPM().Verify(s); err != nil || result.Manufacturer != "acme" || result.Evidence.Facts["manufacturer"] != "acme" {
		t.Errorf("got %+v, %v", result, err)
	}
	// An intermediate that only the other manufacturer registered completes no path to this one's root.
	s = f.forge(func(v *forged) { v.chain = func(c []*x509.Certificate) []*x509.Certificate { return c[:1] } })
	s.Anchors = []attest.Anchor{{Manufacturer: "acme", Certificates: []*x509.Certificate{f.authority.Root}}}
	refused(t, "no intermediate", s, "does not lead to an anchor")
	s.Anchors = append(s.Anchors, attest.Anchor{Manufacturer: "other", Certificates: []*x509.Certificate{f.authority.Issuing}})
	if result, err := attest.TPM().Verify(s); err != nil || result.Manufacturer != "other" {
		t.Errorf("what leads to the other's anchor is %+v, %v", result, err)
	}
}

// Names of the device, and what a statement without one is.
func TestTPMIdentifiers(t *testing.T) {
	f := newForger(t, nil, -7)
	result := must(attest.TPM().Verify(f.forge(func(v *forged) { v.identifier = "" })))(t)
	if len(result.Identifiers) != 0 {
		t.Errorf("identifiers %v", result.Identifiers)
	}
	if _, ok := result.Evidence.Vector["instance_identity"]; ok {
		t.Error("an instance is affirmed that nobody named")
	}
	result = must(attest.TPM().Verify(f.forge(withSAN(attesttest.SANOf(true,
		attesttest.PermanentIdentifier("sensor-17", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555}),
		attesttest.HardwareModule("A-1", asn1.ObjectIdentifier{1, 2, 3, 4}),
		[]byte{0x82, 3, 'd', 'n', 's'})))))(t)
	named := func(names ...[]byte) []attest.Identifier {
		t.Helper()
		return must(attest.TPM().Verify(f.forge(withSAN(attesttest.SANOf(true, names...)))))(t).Identifiers
	}
	// What names no device stands in the way of no name that does.
	for name, odd := range map[string][]byte{
		"a binary serial number":   attesttest.HardwareModule("\x00\xff", asn1.ObjectIdentifier{1, 2, 3}),
		"no value":                 {0xa0, 14, 6, 8, 0x2b, 6, 1, 5, 5, 7, 8, 3, 0xa0, 2, 0x30, 0},
		"an assigner and no value": {0xa0, 18, 6, 8, 0x2b, 6, 1, 5, 5, 7, 8, 3, 0xa0, 6, 0x30, 4, 6, 2, 0x2a, 3},
		"an empty value":           attesttest.PermanentIdentifier("", nil),
		"a long value":             attesttest.PermanentIdentifier(strings.Repeat("a", 256), nil),
		"a value with a slash":     attesttest.PermanentIdentifier("sensor-18/1.2", nil),
	} {
		if got := named(odd, attesttest.PermanentIdentifier("sensor-17", nil)); !slices.Equal(got, []attest.Identifier{{Type: "permanent-identifier", Value: "sensor-17"}}) {
			t.Errorf("%s: identifiers %v", name, got)
		}
		if got := named(odd); len(got) != 0 {
			t.Errorf("%s alone: identifiers %v", name, got)
		}
	}
	want := []attest.Identifier{{Type: "permanent-identifier", Value: "sensor-17/1.3.6.1.4.1.55555"}, {Type: "hardware-module", Value: "A-1/1.2.3.4"}}
	if !slices.Equal(result.Identifiers, want) {
		t.Errorf("identifiers %v", result.Identifiers)
	}
}

// lists are who has a list, by subject, and the serial numbers on it; "stale" is one that is out of date.
type lists map[string][]string

func (l lists) revoked(cert, issuer *x509.Certificate, _ time.Time) (bool, error) {
	listed, there := l[issuer.Subject.CommonName]
	switch {
	case slices.Contains(listed, "stale"):
		return false, errors.New("the list is out of date")
	case slices.Contains(listed, cert.SerialNumber.String()):
		return false, errors.New("it was revoked by its issuer")
	}
	return there, cert.CheckSignatureFrom(issuer)
}

// Revocation: each certificate but the anchor is looked up with its issuer; on a list, on none, on one that is too old.
func TestTPMRevocation(t *testing.T) {
	f := newForger(t, nil, -7)
	s := f.forge(nil)
	var st attesttest.Attestation
	if err := cbor.Unmarshal(s.Raw, &st); err != nil {
		t.Fatal(err)
	}
	ak := must(x509.ParseCertificate(st.X5C[0]))(t).SerialNumber.String()
	a := f.authority
	root, issuing := a.Root.Subject.CommonName, a.Issuing.Subject.CommonName
	for _, c := range []struct {
		name    string
		lists   lists
		checked bool
		says    string
	}{
		{"no list", lists{}, false, ""},
		{"both lists", lists{root: nil, issuing: nil}, true, ""},
		{"one list of two", lists{issuing: nil}, false, ""},
		{"the other list of two", lists{root: nil}, false, ""},
		{"AK revoked", lists{root: nil, issuing: {"1", ak}}, false, "was revoked by its issuer"},
		{"CA revoked", lists{root: {a.Issuing.SerialNumber.String()}, issuing: nil}, false, "was revoked by its issuer"},
		{"serials of the wrong CA", lists{root: {ak}, issuing: {a.Issuing.SerialNumber.String(), a.Root.SerialNumber.String()}}, true, ""},
		{"stale list", lists{issuing: {"stale"}}, false, "out of date"},
		{"a stranger's list", lists{"stranger": {ak}}, false, ""},
	} {
		s := s
		s.Anchors = []attest.Anchor{{Manufacturer: "acme", Certificates: []*x509.Certificate{a.Root}, Revoked: c.lists.revoked}}
		if c.says != "" {
			refused(t, c.name, s, c.says)
			continue
		}
		if result, err := attest.TPM().Verify(s); err != nil || result.Evidence.Facts["revocation_checked"] != c.checked {
			t.Errorf("%s: %+v, %v", c.name, result, err)
		}
	}
	s.Anchors = []attest.Anchor{{Manufacturer: "acme", Certificates: []*x509.Certificate{a.Root}}}
	if result, err := attest.TPM().Verify(s); err != nil || result.Evidence.Facts["revocation_checked"] != false {
		t.Errorf("nothing to look up in: %+v, %v", result, err)
	}
}

// What a statement with a quote costs: here two certificates' signatures, and two of the AK's.
func BenchmarkTPM(b *testing.B) {
	for _, c := range []struct {
		name string
		ak   crypto.Signer
		alg  int64
	}{{"ES256", nil, -7}, {"RS256", rsaKey(), -257}} {
		s := newForger(b, c.ak, c.alg).forge(func(v *forged) { v.quote.send = true })
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := attest.TPM().Verify(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
