package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// mock is openssl's CMP server for tests: it checks the protection and the proof of
// possession, answers with one canned certificate, issues and stores nothing, and
// serves one connection at a time, and each for one transaction.
type mock struct {
	*process
	target
	device *cmp.Signer // whom it trusts; nil with a secret
}

// startMock starts one that knows the group's secret, or one that trusts a CA of its
// own, as ours of P-256 keys, and signs.
func (b *run) startMock(ctx context.Context, signed bool) (*mock, error) {
	m := &mock{}
	var err error
	if m.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(m.addr)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, fmt.Sprintf("mock-%v", signed))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	now := time.Now()
	root, err := mockParty(&x509.Certificate{Subject: pkix.Name{CommonName: "Mock CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		SubjectKeyId: []byte("root"), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	if err != nil {
		return nil, err
	}
	var ends [2]holder // the server, the device
	for i, name := range []string{"server", "device"} {
		if ends[i], err = mockParty(&x509.Certificate{Subject: pkix.Name{CommonName: name}, SubjectKeyId: []byte(name), NotBefore: root.cert.NotBefore,
			NotAfter: root.cert.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature}, &root); err != nil {
			return nil, err
		}
	}
	for name, block := range map[string]func() (*pem.Block, error){
		"cert.pem": certBlock(ends[0].cert), "key.pem": keyBlock(ends[0].key), "root.pem": certBlock(root.cert),
	} {
		p, err := block()
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(p), 0o600); err != nil {
			return nil, err
		}
	}
	args := []string{"cmp", "-config", "", "-port", port, "-verbosity", "3", "-grant_implicitconf", "-rsp_cert", "cert.pem"}
	if signed {
		args = append(args, "-srv_cert", "cert.pem", "-srv_key", "key.pem", "-srv_trusted", "root.pem")
		if m.device, err = cmp.NewSigner(ends[1].key, ends[1].cert, cmp.SignerOptions{}); err != nil {
			return nil, err
		}
	} else {
		args = append(args, "-srv_ref", b.ours.reference, "-srv_secret", "pass:"+b.ours.secret)
	}
	cmd := exec.CommandContext(ctx, "openssl", args...)
	cmd.Dir = dir
	if m.process, err = start(cmd, filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	if err := m.until(ctx, func() error {
		conn, err := net.DialTimeout("tcp", m.addr, time.Second)
		if err == nil {
			err = conn.Close()
		}
		return err
	}); err != nil {
		m.kill()
		return nil, err
	}
	return m, nil
}

// holder is a key with its certificate.
type holder struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// mockParty certifies a new key; nil signs itself.
func mockParty(template *x509.Certificate, by *holder) (holder, error) {
	key, err := newKey()
	if err != nil {
		return holder{}, err
	}
	if by == nil {
		by = &holder{key, template}
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	cert, err := certify(template, by.cert, &key.PublicKey, by.key)
	return holder{key, cert}, err
}
