package cmp

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// opensslFiles has keys and certificates in PEM for the openssl program.
func opensslFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	h := hierarchy()
	for name, p := range map[string]party{"root": h.root, "issuing": h.issuing, "ec": h.ec, "rsa": h.rsa, "ed": h.ed, "p384": h.p384} {
		key := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(p.key))
		write(t, filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
		write(t, filepath.Join(dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
	}
	csr := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "device"}}, h.ec.key))
	write(t, filepath.Join(dir, "device.csr"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))
	return dir
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func openssl(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", append([]string{"cmp", "-config", ""}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestOpenSSLMessages reads what openssl's client and its mock server say to each
// other: each message comes back octet for octet and verifies as openssl meant it.
func TestOpenSSLMessages(t *testing.T) {
	dir := opensslFiles(t)
	h := hierarchy()
	roots := x509.NewCertPool()
	roots.AddCert(h.root.cert)
	shared := "-ref 1234 -secret pass:shared -srv_ref 4321 -srv_secret pass:shared -recipient /CN=CA "
	byCert := func(who string) string {
		return "-cert " + who + ".crt -key " + who + ".key -extracerts issuing.crt -trusted root.crt -untrusted issuing.crt " +
			"-srv_cert p384.crt -srv_key p384.key -srv_trusted root.crt -srv_untrusted issuing.crt "
	}
	enroll := "-newkey ec.key -subject /CN=device -rsp_cert ec.crt -partial_chain "
	for n, c := range []struct {
		name, args string
		bodies     string
		fails      bool // openssl's server refuses what we only read
	}{
		{"ir, PBM", "-cmd ir " + shared + enroll, "ir ip certConf pkiconf", false},
		{"ir, PBM, implicit", "-cmd ir -implicit_confirm -grant_implicitconf " + shared + enroll, "ir ip", false},
		{"cr, PBM, SHA-512 and HMAC-SHA256", "-cmd cr -digest sha512 -mac hmacWithSHA256 " + shared + enroll, "cr cp certConf pkiconf", false},
		{"cr, PBM, SHA-1", "-cmd cr -digest sha1 " + shared + enroll, "cr cp certConf pkiconf", false},
		{"cr, PBM, SHA-384 and HMAC-SHA512", "-cmd cr -digest sha384 -mac hmacWithSHA512 " + shared + enroll, "cr cp certConf pkiconf", false},
		{"cr, PBM, SHA-224 and HMAC-SHA384", "-cmd cr -digest sha224 -mac hmacWithSHA384 " + shared + enroll, "cr cp certConf pkiconf", false},
		{"p10cr, PBM", "-cmd p10cr -csr device.csr -rsp_cert ec.crt " + shared, "p10cr cp certConf pkiconf", false},
		{"polling", "-cmd ir -poll_count 2 -check_after 1 " + shared + enroll, "ir ip pollReq pollRep pollReq ip certConf pkiconf", false},
		{"genm", "-cmd genm -infotype signKeyPairTypes " + shared, "genm genp", false},
		{"genm, caCerts", "-cmd genm -infotype caCerts " + shared, "genm genp", false},
		{"genm, currentCRL, signed", "-cmd genm -infotype currentCRL " + byCert("ec"), "genm genp", false},
		{"genm, nothing asked", "-cmd genm " + shared, "genm genp", false},
		{"rejected", "-cmd ir -pkistatus 2 -failurebits 512 -statusstring no " + shared + enroll, "ir ip", true},
		{"error", "-cmd ir -send_error -failurebits 2 " + shared + enroll, "ir error", true},
		{"alternative names, no subject", "-cmd ir -newkey ec.key -sans dns:a.example -rsp_cert ec.crt " + shared, "ir ip", true},
		{"raVerified", "-cmd ir -popo 0 " + shared + enroll, "ir ip", true},
		{"key encipherment", "-cmd ir -popo 2 " + shared + enroll, "ir ip", true},
		{"cr, ECDSA", "-cmd cr " + byCert("ec") + enroll, "cr cp certConf pkiconf", false},
		{"cr, RSA", "-cmd cr " + byCert("rsa") + enroll, "cr cp certConf pkiconf", false},
		{"cr, ECDSA, SHA-384", "-cmd cr -digest sha384 " + byCert("ec") + enroll, "cr cp certConf pkiconf", false},
		{"cr, P-384, SHA-512", "-cmd cr -digest sha512 " + byCert("p384") + enroll, "cr cp certConf pkiconf", false},
		{"cr, RSA, SHA-512", "-cmd cr -digest sha512 " + byCert("rsa") + enroll, "cr cp certConf pkiconf", false},
		{"cr, RSA, SHA-384", "-cmd cr -digest sha384 " + byCert("rsa") + enroll, "cr cp certConf pkiconf", false},
		{"p10cr, ECDSA", "-cmd p10cr -csr device.csr -rsp_cert ec.crt " + byCert("ec"), "p10cr cp certConf pkiconf", false},
		{"kur", "-cmd kur " + byCert("ec") + "-newkey ec.key -rsp_cert ec.crt ", "kur kup certConf pkiconf", false},
		{"rr", "-cmd rr -revreason 1 -oldcert ec.crt " + byCert("ec"), "rr error", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var files, reqs, rsps []string
			bodies := strings.Fields(c.bodies)
			for i := range bodies {
				name := filepath.Join(dir, fmt.Sprintf("%d-%d", n, i)) // openssl takes commas apart
				files = append(files, name)
				if i%2 == 0 {
					reqs = append(reqs, name)
				} else {
					rsps = append(rsps, name)
				}
			}
			args := append(strings.Fields(c.args), "-use_mock_srv", "-certout", "got.crt", "-attime", "1777896000",
				"-reqout", strings.Join(reqs, " "), "-rspout", strings.Join(rsps, " "))
			if strings.Contains(c.args, "genm") || strings.Contains(c.args, "-cmd rr") {
				args = append(args[:len(args)-8:len(args)-8], args[len(args)-6:]...)
			}
			if out, err := openssl(t, dir, args...); (err != nil) != c.fails {
				t.Fatalf("openssl %s: %v\n%s", args, err, out)
			}
			for i, name := range files {
				raw := must[[]byte](t)(os.ReadFile(name))
				m, err := Parse(raw)
				if err != nil {
					t.Fatalf("%s: %v", bodies[i], err)
				}
				if m.Body.Type().String() != bodies[i] {
					t.Errorf("message %d is %s, not %s", i, m.Body.Type(), bodies[i])
				}
				if again := must[[]byte](t)(m.Marshal()); !bytes.Equal(again, raw) {
					t.Errorf("%s encoded anew\n%x\nwas\n%x", bodies[i], again, raw)
				}
				if err := m.Describe(io.Discard); err != nil {
					t.Error(err)
				}
				_, err = m.Verify(VerifyOptions{
					Secret: func([]byte) ([]byte, error) { return []byte("shared"), nil },
					Trust:  TrustRoots(roots, at(noon)),
					// It sends its certificate in every message, but the mock's reply may lack it.
					Known: []*x509.Certificate{h.p384.cert},
				})
				if err != nil {
					t.Errorf("%s: %v", bodies[i], err)
				}
				if q, ok := m.Body.(*CertRequests); ok {
					err := q.Requests[0].VerifyPOP(POPRules{})
					// -digest holds for this signature too, and SHA-1 is not taken.
					if signed := !strings.Contains(c.args, "-popo") && !strings.Contains(c.args, "sha1"); (err == nil) != signed {
						t.Errorf("proof of possession: %v", err)
					}
				}
			}
		})
	}
}

// tinyCA answers openssl's client with messages of ours, without any policy.
type tinyCA struct {
	t      *testing.T
	by     Protector // nil: the MAC of the request
	grant  bool
	issued []byte
	last   *Message
}

func (ca *tinyCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		ca.t.Error(err)
		return
	}
	m, err := Parse(raw)
	if err != nil {
		ca.t.Error(err)
		return
	}
	h := hierarchy()
	roots := x509.NewCertPool()
	roots.AddCert(h.root.cert)
	o := VerifyOptions{
		Secret: func([]byte) ([]byte, error) { return []byte("shared"), nil },
		Trust:  TrustRoots(roots, at(noon)),
		Header: HeaderRules{First: true},
	}
	if ca.last != nil {
		o.Header = HeaderRules{TransactionID: ca.last.Header.TransactionID, RecipNonces: [][]byte{ca.last.Header.SenderNonce}}
	}
	v, err := m.Verify(o)
	if err != nil {
		ca.t.Error(err)
		return
	}
	answer := Reply(m, nil, time.Now())
	ca.answer(m, answer)
	by := ca.by
	if by == nil {
		by = v.MAC
	}
	if err := answer.Protect(by); err != nil {
		ca.t.Error(err)
		return
	}
	ca.last = answer
	w.Header().Set("Content-Type", "application/pkixcmp")
	_, _ = w.Write(answer.Raw()) // the client's failure shows in its exit status
}

func (ca *tinyCA) answer(m, answer *Message) {
	h := hierarchy()
	certify := func(subject []byte, spki []byte) {
		key, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			ca.t.Error(err)
			return
		}
		ca.issued, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(99), RawSubject: subject,
			NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(1, 0, 0)}, h.issuing.cert, key, h.issuing.key)
		if err != nil {
			ca.t.Error(err)
		}
	}
	id := int64(0)
	switch b := m.Body.(type) {
	case *CertRequests:
		q := b.Requests[0]
		if err := q.VerifyPOP(POPRules{Sender: m.Header.Sender}); err != nil {
			ca.t.Error(err)
		}
		certify(q.Template.Subject, q.Template.PublicKey)
	case *PKCS10:
		csr, err := x509.ParseCertificateRequest(b.Request)
		if err != nil || csr.CheckSignature() != nil {
			ca.t.Error("p10cr", err)
			return
		}
		id = -1
		certify(csr.RawSubject, csr.RawSubjectPublicKeyInfo)
	case *Confirmations:
		if len(b.List) != 1 || !b.List[0].Accepted() {
			ca.t.Errorf("%+v", b.List)
		} else if err := b.List[0].Matches(ca.issued); err != nil {
			ca.t.Error(err)
		}
		answer.Body = &Confirm{}
		return
	case *Revocations:
		if reason, found, err := b.List[0].Reason(); reason != 4 || !found || err != nil {
			ca.t.Error(reason, found, err)
		}
		answer.Body = &RevocationResults{Statuses: []StatusInfo{{Status: Accepted}},
			Certs: []CertID{{DirectoryName(b.List[0].Template.Issuer), b.List[0].Template.SerialNumber}}}
		return
	case *General:
		info, err := SignKeyPairTypes(Algorithm{OID: oidEd25519})
		if err != nil {
			ca.t.Error(err)
		}
		answer.Body = &General{Response: true, Infos: Infos{info}}
		return
	}
	answer.Body = &CertResponses{Of: m.Body.Type().Reply(), Responses: []CertResponse{{CertReqID: id, KeyPair: &KeyPair{Certificate: ca.issued}}}}
	answer.ExtraCerts = [][]byte{h.issuing.cert.Raw}
	if asked, err := m.Header.GeneralInfo.ImplicitConfirm(); err != nil {
		ca.t.Error(err)
	} else if asked && ca.grant {
		answer.Header.GeneralInfo = Infos{ImplicitConfirm()}
	}
}

// TestOpenSSLReadsUs has openssl's client take our answers.
func TestOpenSSLReadsUs(t *testing.T) {
	dir := opensslFiles(t)
	h := hierarchy()
	chain := []*x509.Certificate{h.issuing.cert}
	signer := must[*Signer](t)(NewSigner(h.ec.key, h.ec.cert, SignerOptions{Chain: chain}))
	pss := must[*Signer](t)(NewSigner(h.rsa.key, h.rsa.cert, SignerOptions{Chain: chain, PSS: true}))
	rsa := must[*Signer](t)(NewSigner(h.rsa.key, h.rsa.cert, SignerOptions{Chain: chain}))
	ed := must[*Signer](t)(NewSigner(h.ed.key, h.ed.cert, SignerOptions{Chain: chain}))
	shared := "-ref 1234 -secret pass:shared -recipient /CN=CA "
	cert := "-cert p384.crt -key p384.key -extracerts issuing.crt -trusted root.crt -recipient /CN=CA "
	enroll := "-newkey ec.key -subject /CN=device -certout got.crt "
	for _, c := range []struct {
		name, args string
		by         Protector
		grant      bool
		cert       bool
	}{
		{"ir, MAC, explicit", "-cmd ir " + shared + enroll, nil, false, true},
		{"ir, MAC, implicit", "-cmd ir -implicit_confirm " + shared + enroll, nil, true, true},
		{"p10cr, MAC", "-cmd p10cr -csr device.csr -certout got.crt " + shared, nil, false, true},
		{"cr, ECDSA", "-cmd cr " + cert + enroll, signer, false, true},
		{"cr, RSA", "-cmd cr " + cert + enroll, rsa, false, true},
		{"cr, RSA-PSS", "-cmd cr " + cert + enroll, pss, false, true},
		{"cr, Ed25519", "-cmd cr " + cert + enroll, ed, false, true},
		{"kur", "-cmd kur -newkey ec.key -certout got.crt " + cert, signer, false, true},
		{"rr", "-cmd rr -revreason 4 -oldcert p384.crt " + cert, signer, false, false},
		{"genm", "-cmd genm -infotype signKeyPairTypes " + shared, nil, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ca := &tinyCA{t: t, by: c.by, grant: c.grant}
			s := httptest.NewServer(ca)
			defer s.Close()
			got := filepath.Join(dir, "got.crt")
			_ = os.Remove(got) // of the case before, if it made one
			args := append(strings.Fields(c.args), "-server", strings.TrimPrefix(s.URL, "http://"), "-attime", "1777896000")
			out, err := openssl(t, dir, args...)
			if err != nil {
				t.Fatalf("openssl %s: %v\n%s", args, err, out)
			}
			if c.cert {
				block, _ := pem.Decode(must[[]byte](t)(os.ReadFile(got)))
				if block == nil || !bytes.Equal(block.Bytes, ca.issued) {
					t.Error("it has another certificate")
				}
			}
			if confirmed := ca.last.Body.Type() == PKIConf; confirmed != (c.cert && !c.grant) {
				t.Errorf("the last answer was %s", ca.last.Body.Type())
			}
		})
	}
}
