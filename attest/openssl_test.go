package attest_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/attest"
)

// What docs/attestation.md tells an attestation authority to type makes certificates that are accepted.
func TestOpenSSLIssuesAKCertificates(t *testing.T) {
	config := must(os.ReadFile("testdata/ak.cnf"))(t)
	doc := string(must(os.ReadFile("../docs/attestation.md"))(t))
	issue := []string{"openssl", "x509", "-new", "-force_pubkey", "ak.pub.pem", "-subj", "/", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "365",
		"-extfile", "ak.cnf", "-extensions", "ak", "-out", "ak.pem"}
	if !strings.Contains(doc, string(config)) || !strings.Contains(strings.Join(strings.Fields(strings.ReplaceAll(doc, "\\\n", " ")), " "), strings.Join(issue, " ")) {
		t.Fatal("the documentation says something else")
	}
	f := newForger(t, nil, -7)
	dir := t.TempDir()
	write := func(name, kind string, content []byte) {
		if kind != "" {
			content = pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ak.cnf", "", config)
	write("ak.pub.pem", "PUBLIC KEY", must(x509.MarshalPKIXPublicKey(f.ak.Public()))(t))
	write("ca.key", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(f.authority.IssuingKey))(t))
	write("ca.crt", "CERTIFICATE", f.authority.Issuing.Raw)
	cmd := exec.Command(issue[0], issue[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	block, _ := pem.Decode(must(os.ReadFile(filepath.Join(dir, "ak.pem")))(t))
	cert := must(x509.ParseCertificate(block.Bytes))(t)
	s := f.forge(func(v *forged) {
		v.chain = func(c []*x509.Certificate) []*x509.Certificate { return []*x509.Certificate{cert, c[1]} }
		v.after = func(s *attest.Statement) { s.Now = cert.NotBefore }
	})
	result := must(attest.TPM().Verify(s))(t)
	if len(result.Identifiers) != 1 || result.Identifiers[0] != (attest.Identifier{Type: "permanent-identifier", Value: "sensor-17"}) ||
		result.Evidence.Facts["tpm_model"] != "swtpm" {
		t.Errorf("%+v", result)
	}
}
