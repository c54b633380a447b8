package attest

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// The files of testdata come from the projects in its SOURCES.tsv. What they are of is real: it
// shows that what TPMs make is read as TPMs mean it.

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readJSON(t testing.TB, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// saysWhy checks that err is there, and has the text.
func saysWhy(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, which does not say %q", err, says)
	}
}

// WebAuthn objects of a Windows TPM under "FIDO Fake TPM Root".
func TestVectorsWebAuthn(t *testing.T) {
	for name, alg := range map[string]int64{"webauthn-tpm-rsa-sha256": -257, "webauthn-tpm-rsa-sha1": -65535} {
		object, err := ParseObject(read(t, name+".attobj.cbor"))
		if err != nil || object.Format != "tpm" || object.AuthData == nil {
			t.Fatal(object, err)
		}
		st, err := parseTPMStatement(object.Statement)
		if err != nil || st.Alg != alg {
			t.Fatal(st.Alg, err)
		}
		ak, err := x509.ParseCertificate([]byte(st.X5C[0]))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := inspectAK(ak); err != nil {
			t.Errorf("%s: its AK certificate has all that is due: %v", name, err)
		}
		s := Statement{Raw: object.Statement, AuthData: object.AuthData, Challenge: []byte("gHrA"), Now: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
			Anchors: []Anchor{{"fake", []*x509.Certificate{ak}, nil}}}
		_, err = TPM().Verify(s)
		saysWhy(t, err, "x5c certificate 2")
		saysWhy(t, err, "negative")

		t.Setenv("GODEBUG", "x509negativeserial=1") // what others may have set lets nothing pass either
		_, err = TPM().Verify(s)
		saysWhy(t, err, "its serial number is negative")

		client := sha256.Sum256(read(t, name+".clientdata.json"))
		bound := append(bytes.Clone(object.AuthData), client[:]...)
		a, err := algorithmFor(st.Alg, ak.PublicKey)
		if alg == coseRS1 {
			saysWhy(t, err, "RS1")
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := a.verify(ak.PublicKey, []byte(st.CertInfo), []byte(st.Sig)); err != nil {
			t.Error(err)
		}
		_, err = checkCertified([]byte(st.CertInfo), []byte(st.PubArea), a.sum([]byte("a key authorization")))
		saysWhy(t, err, "extraData is not the hash")
		_, err = checkCertified([]byte(st.CertInfo), []byte(st.PubArea), a.sum(bound)) // the name fits, the key does not
		saysWhy(t, err, "decrypt is set")
	}
}

// hclKey is the AK that an Azure report holds as a JWK.
func hclKey(t *testing.T, report []byte) *rsa.PublicKey {
	i := bytes.Index(report, []byte(`{"keys"`))
	if i < 0 {
		t.Fatal("no keys in the report")
	}
	var runtime struct {
		Keys []struct{ Kid, N string }
	}
	if err := json.NewDecoder(bytes.NewReader(report[i:])).Decode(&runtime); err != nil {
		t.Fatal(err)
	}
	for _, k := range runtime.Keys {
		if k.Kid == "HCLAkPub" {
			n, err := base64.RawURLEncoding.DecodeString(k.N)
			if err != nil {
				t.Fatal(err)
			}
			return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
		}
	}
	t.Fatal("no AK in the report")
	return nil
}

type azureQuote struct {
	Signature, Message string
	PCRs               []string
}

// encode makes our quote of it.
func (a azureQuote) encode(t *testing.T) []byte {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	q := tpmQuote{Version: 1, Alg: -257, Quoted: cbor.ByteString(unhex(a.Message)), Sig: cbor.ByteString(unhex(a.Signature)), PCRs: map[uint64]cbor.ByteString{}}
	info, err := parseAttest([]byte(q.Quoted))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range info.selected {
		q.PCRs[uint64(i)] = cbor.ByteString(unhex(a.PCRs[i]))
	}
	out, err := cbor.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Quotes of Azure's vTPMs: signature and digest are good; the nonce is the word "challenge" itself, which
// our quotes have as a hash.
func TestVectorsAzureQuotes(t *testing.T) {
	var first azureQuote
	readJSON(t, read(t, "azure-vtpm/tpm-quote-v1.json"), &first)
	firstAK := hclKey(t, read(t, "azure-vtpm/hcl-report.bin"))
	var evidence struct {
		HCLReport string     `json:"hcl_report"`
		Quote     azureQuote `json:"tpm_quote"`
	}
	readJSON(t, read(t, "azure-vtpm/evidence-v1.json"), &evidence)
	report, err := base64.URLEncoding.DecodeString(evidence.HCLReport)
	if err != nil {
		t.Fatal(err)
	}
	secondAK := hclKey(t, report)
	for _, c := range []struct {
		quote azureQuote
		ak    crypto.PublicKey
		says  string
	}{
		{first, firstAK, "extraData is not the SHA-256"},
		{evidence.Quote, secondAK, "extraData is not the SHA-256"},
		{first, secondAK, "does not verify"},
		{evidence.Quote, firstAK, "does not verify"},
	} {
		_, err := verifyQuote(c.quote.encode(t), c.ak, []byte("challenge"))
		saysWhy(t, err, c.says)
	}
	for _, q := range []azureQuote{first, evidence.Quote} {
		message, err := hex.DecodeString(q.Message)
		if err != nil {
			t.Fatal(err)
		}
		info, err := parseAttest(message)
		if err != nil || info.kind != attestQuote || string(info.extraData) != "challenge" || info.bank != algSHA256 {
			t.Fatalf("%+v %v", info, err)
		}
		var values [][]byte
		for _, i := range info.selected {
			value, err := hex.DecodeString(q.PCRs[i])
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
		}
		if !bytes.Equal(info.pcrDigest, sum(crypto.SHA256, values...)) {
			t.Error("the digest of the PCRs is another")
		}
	}
	nobody := &algorithms[6]
	for _, ak := range []crypto.PublicKey{firstAK, secondAK} {
		saysWhy(t, nobody.verify(ak, read(t, "azure-vtpm/tpm-quote.msg"), read(t, "azure-vtpm/tpm-quote.sig")), "does not verify")
	}
}

// A quote of tpm2-tools, whose signature is a TPMT_SIGNATURE; of a SHA-256 bank, but not of the boot.
func TestVectorsKeylime(t *testing.T) {
	ak := rsaOf(t)
	rs256, err := algorithmFor(-257, ak)
	if err != nil {
		t.Fatal(err)
	}
	quoted, sig := read(t, "keylime/quote.out"), read(t, "keylime/quotesig.out")
	if err := rs256.verify(ak, quoted, sig); err != nil {
		t.Error(err)
	}
	info, err := parseAttest(quoted)
	if err != nil || hex.EncodeToString(info.extraData) != "db1db298db6d60e6385b7231743e9c3056a18003" {
		t.Fatalf("%+v %v", info, err)
	}
	sig[len(sig)-1] ^= 1
	saysWhy(t, rs256.verify(ak, quoted, sig), "does not verify")
}

// A quote of a Google shielded VM: signed by SHA-1, of the SHA-1 bank, and without a nonce. Its AK's public
// area is read, and no device's key; what TPM2_CertifyCreation says is of no type that is taken.
func TestVectorsShieldedVM(t *testing.T) {
	var vm struct {
		AK struct {
			Public, CreateAttestation []byte
		}
		Quote struct{ Quote, Signature []byte }
	}
	readJSON(t, read(t, "quote/windows_gcp_shielded_vm.json"), &vm)
	public, err := parsePublic(vm.AK.Public)
	if err != nil {
		t.Fatal(err)
	}
	saysWhy(t, public.mayIdentify(), "restricted is set")
	ak, err := public.key()
	if err != nil {
		t.Fatal(err)
	}
	_, err = parseAttest(vm.AK.CreateAttestation)
	saysWhy(t, err, "type 0x801a")
	info, err := parseAttest(vm.Quote.Quote)
	if err != nil || info.kind != attestQuote || len(info.extraData) != 0 || info.bank != 4 {
		t.Fatalf("%+v %v", info, err)
	}
	out, err := cbor.Marshal(tpmQuote{Version: 1, Alg: -257, Quoted: cbor.ByteString(vm.Quote.Quote), Sig: cbor.ByteString(vm.Quote.Signature)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifyQuote(out, ak, []byte("any nonce"))
	saysWhy(t, err, "scheme 0x0014 and hash 0x0004")
}

// Parsec's key attestation (certify) and platform attestation (quote) in one.
func TestVectorsParsec(t *testing.T) {
	var evidence struct {
		KAT struct {
			CertInfo, PubArea cbor.ByteString
		} `cbor:"kat"`
		PAT struct {
			AttestInfo cbor.ByteString
		} `cbor:"pat"`
	}
	if err := cbor.Unmarshal(read(t, "parsec/evidence.cbor"), &evidence); err != nil {
		t.Fatal(err)
	}
	nonce := []byte{0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef}
	for kind, raw := range map[uint16]cbor.ByteString{attestCertify: evidence.KAT.CertInfo, attestQuote: evidence.PAT.AttestInfo} {
		info, err := parseAttest([]byte(raw))
		if err != nil || info.kind != kind || !bytes.Equal(info.extraData, nonce) {
			t.Errorf("%#04x: %+v %v", kind, info, err)
		}
	}
}

// A certificate of Google's for a vTPM key that signs: its chain is good, and it is no AK certificate.
func TestVectorsGoogleAK(t *testing.T) {
	block, _ := pem.Decode(read(t, "ek/gcp-pca_tpm_rsa_sign_cert.pem"))
	st := tpmStatement{Version: "2.0", Alg: -257, X5C: []cbor.ByteString{cbor.ByteString(block.Bytes), cbor.ByteString(read(t, "ek/gcp_ek_ak_ca_intermediate_v3.crt"))},
		Sig: "s", CertInfo: "c", PubArea: "p"}
	raw, err := cbor.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(read(t, "ek/gcp_ek_ak_ca_root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = TPM().Verify(Statement{Raw: raw, Challenge: []byte("c"), Now: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), Anchors: []Anchor{{"google", []*x509.Certificate{root}, nil}}})
	if !errors.Is(err, ErrEvidence) {
		t.Error(err)
	}
	saysWhy(t, err, "subject is not empty")
}

// rsaOf is the AK of keylime's quote.
func rsaOf(t testing.TB) *rsa.PublicKey {
	block, _ := pem.Decode(read(t, "keylime/akpub.pem"))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PublicKey)
}
