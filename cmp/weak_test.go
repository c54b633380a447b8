package cmp

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"
)

// A signer is not trusted by a path with an RSA key that can be factored.
func TestTrustRootsWeakKeys(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	strong, weak := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048)), must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	make := func(name string, key *rsa.PrivateKey, parent *x509.Certificate, by *rsa.PrivateKey) *x509.Certificate {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true}
		if parent == nil {
			parent = c
		}
		return must[*x509.Certificate](t)(x509.ParseCertificate(must[[]byte](t)(x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by))))
	}
	root := make("root", strong, nil, strong)
	weakRoot := make("weak root", weak, nil, weak)
	between := make("weak CA", weak, root, strong)
	for _, tt := range []struct {
		name                  string
		signer, root, between *x509.Certificate
		says                  string
	}{
		{"strong", make("signer", strong, root, strong), root, nil, ""},
		{"signer", make("signer", weak, root, strong), root, nil, "CN=signer: its key is RSA of 1024 bits"},
		{"CA between", make("signer", strong, between, weak), root, between, "CN=weak CA: its key is RSA of 1024 bits"},
		{"root", make("signer", strong, weakRoot, weak), weakRoot, nil, "CN=weak root: its key is RSA of 1024 bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			roots := x509.NewCertPool()
			roots.AddCert(tt.root)
			var others []*x509.Certificate
			if tt.between != nil {
				others = append(others, tt.between)
			}
			err := TrustRoots(roots, at(noon))(tt.signer, others)
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}
