package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// estserver is globalsign's EST server: a software key, and nothing stored.
type estserver struct {
	*process
	target
	issuer *x509.Certificate
	key    *ecdsa.PrivateKey
}

// buildEstserver builds the version that interop/globalsign pins.
func buildEstserver(ctx context.Context, module, dir string) (string, error) {
	program := filepath.Join(dir, "estserver")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/globalsign/est/cmd/estserver")
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building globalsign's estserver: %w\n%s", err, out)
	}
	return program, nil
}

// startEstserver gives it a CA of P-256 keys as ours has, one level deep, and the
// configuration that its README describes.
func startEstserver(ctx context.Context, program, dir string) (*estserver, error) {
	s := &estserver{}
	var err error
	if s.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	if s.key, err = newKey(); err != nil {
		return nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Bench CA"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	if s.issuer, err = certify(ca, ca, &s.key.PublicKey, s.key); err != nil {
		return nil, err
	}
	tlsKey, err := newKey()
	if err != nil {
		return nil, err
	}
	tlsCert, err := certify(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, s.issuer, &tlsKey.PublicKey, s.key)
	if err != nil {
		return nil, err
	}
	s.roots = x509.NewCertPool()
	s.roots.AddCert(s.issuer)

	in := func(name string) string { return filepath.Join(dir, name) }
	for name, block := range map[string]func() (*pem.Block, error){
		"peer-ca.crt":  certBlock(s.issuer),
		"peer-ca.key":  keyBlock(s.key),
		"peer-tls.crt": certBlock(tlsCert),
		"peer-tls.key": keyBlock(tlsKey),
	} {
		b, err := block()
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(in(name), pem.EncodeToMemory(b), 0o600); err != nil {
			return nil, err
		}
	}
	type object = map[string]any
	config, err := json.Marshal(object{
		"mock_ca":       object{"certificates": in("peer-ca.crt"), "private_key": in("peer-ca.key")},
		"tls":           object{"listen_address": s.addr, "certificates": in("peer-tls.crt"), "private_key": in("peer-tls.key"), "client_cas": []string{in("peer-ca.crt")}},
		"allowed_hosts": []string{s.addr, "127.0.0.1"},
		"timeout":       30,
		"log_file":      in("peer.log"),
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(in("peer.json"), config, 0o600); err != nil {
		return nil, err
	}
	if s.process, err = start(exec.CommandContext(ctx, program, "-config", in("peer.json")), in("peer.err")); err != nil {
		return nil, err
	}
	err = s.until(ctx, func() error {
		c := newClient(s.target, nil, false)
		defer c.close()
		return c.connect(ctx)
	})
	if err != nil {
		s.kill()
		return nil, err
	}
	return s, nil
}

// fleet makes devices with certificates of the peer's CA.
func (s *estserver) fleet(n int) (*fleet, error) {
	f := &fleet{target: s.target, ids: make([]string, n), certs: make([]*tls.Certificate, n)}
	return f, parallel(n, func(i int) error {
		f.ids[i] = fmt.Sprintf("bench-fleet-%d", i)
		key, err := newKey()
		if err != nil {
			return err
		}
		cert, err := certify(&x509.Certificate{SerialNumber: big.NewInt(int64(100 + i)), Subject: pkix.Name{CommonName: f.ids[i]},
			NotBefore: s.issuer.NotBefore, NotAfter: s.issuer.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, s.issuer, &key.PublicKey, s.key)
		if err != nil {
			return err
		}
		f.certs[i] = &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
		return nil
	})
}

func certify(template, issuer *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func certBlock(cert *x509.Certificate) func() (*pem.Block, error) {
	return func() (*pem.Block, error) { return &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}, nil }
}

func keyBlock(key *ecdsa.PrivateKey) func() (*pem.Block, error) {
	return func() (*pem.Block, error) {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return &pem.Block{Type: "PRIVATE KEY", Bytes: der}, err
	}
}
