package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The other servers of ACME, and the versions that are measured.
const (
	pebbleModule = "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1"
	stepModule   = "github.com/smallstep/certificates/cmd/step-ca@v0.30.2"
)

// install builds a program of another module, once for each version, into a directory that is kept.
func install(ctx context.Context, module, cache string) (string, error) {
	path, version, _ := strings.Cut(module, "@")
	dir, err := filepath.Abs(filepath.Join(cache, filepath.Base(path)+"-"+version))
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, filepath.Base(path))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	progress("building %s", module)
	cmd := exec.CommandContext(ctx, "go", "install", module)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", module, err, out)
	}
	return program, nil
}

// acmePeer is another server of ACME that this program started.
type acmePeer struct {
	*process
	acmeServer
	answers *answerer // of http-01; nil if nobody asks
}

// close ends the server, which has nothing to keep.
func (p *acmePeer) close() {
	if p.answers != nil {
		p.answers.server.Close()
	}
	p.kill()
}

// ready waits for the server's directory, and registers a client for each connection.
func (p *acmePeer) ready(ctx context.Context, n int) ([]*acmeAccount, error) {
	var first *acmeAccount
	if err := p.until(ctx, func() (err error) {
		first, err = p.register(ctx)
		return err
	}); err != nil {
		return nil, err
	}
	return p.accounts(ctx, n, first)
}

// accounts registers a client for each connection, beside those that are there.
func (s *acmeServer) accounts(ctx context.Context, n int, there ...*acmeAccount) ([]*acmeAccount, error) {
	all := append(there, make([]*acmeAccount, n-len(there))...)
	return all, each(all[len(there):], func(i int, _ *acmeAccount) (err error) {
		all[len(there)+i], err = s.register(ctx)
		return err
	})
}

// authority is a chain of P-256 keys for a peer: a root, an issuing CA, and a TLS certificate.
type authority struct {
	root, issuing, tls *x509.Certificate
	files              map[string]string // of each, NAME.crt and NAME.key
}

func newAuthority(dir string) (*authority, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	a := &authority{files: map[string]string{}}
	now := time.Now()
	var keys [3]*ecdsa.PrivateKey
	var certs [3]*x509.Certificate
	for i, t := range []*x509.Certificate{
		{Subject: pkix.Name{CommonName: "Bench Root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign},
		{Subject: pkix.Name{CommonName: "Bench CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature},
		{Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
	} {
		t.SerialNumber, t.NotBefore, t.NotAfter = big.NewInt(int64(i+1)), now.Add(-time.Hour), now.AddDate(1, 0, 0)
		var err error
		if keys[i], err = newKey(); err != nil {
			return nil, err
		}
		issuer := max(0, i-1)
		parent := certs[issuer]
		if i == 0 {
			parent = t
		}
		if certs[i], err = certify(t, parent, &keys[i].PublicKey, keys[issuer]); err != nil {
			return nil, err
		}
		name := []string{"root", "issuing", "tls"}[i]
		for ext, block := range map[string]func() (*pem.Block, error){".crt": certBlock(certs[i]), ".key": keyBlock(keys[i])} {
			b, err := block()
			if err != nil {
				return nil, err
			}
			a.files[name+ext] = filepath.Join(dir, name+ext)
			if err := os.WriteFile(a.files[name+ext], pem.EncodeToMemory(b), 0o600); err != nil {
				return nil, err
			}
		}
	}
	a.root, a.issuing, a.tls = certs[0], certs[1], certs[2]
	return a, nil
}

type jsonObject = map[string]any

// startPeer writes a configuration and runs a server with it.
func startPeer(ctx context.Context, p *acmePeer, a *authority, dir string, config jsonObject, program string, args, env []string) error {
	raw, err := json.Marshal(config)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return err
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "CONFIG", file)
	}
	p.roots = x509.NewCertPool()
	p.roots.AddCert(a.root)
	p.roots.AddCert(a.issuing) // pebble shows the certificate alone
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	p.process, err = start(cmd, filepath.Join(dir, "stderr"))
	return err
}

// startPebble is Let's Encrypt's test server, with the key that it has unless it is told: RSA-2048.
func startPebble(ctx context.Context, program, dir string) (*acmePeer, error) {
	return startPebbleWith(ctx, program, dir, "rsa")
}

// startPebbleP256 is the same with a key like ours.
func startPebbleP256(ctx context.Context, program, dir string) (*acmePeer, error) {
	return startPebbleWith(ctx, program, dir, "ecdsa")
}

// startPebbleWith starts it: everything in memory, no challenge looked at.
func startPebbleWith(ctx context.Context, program, dir, algorithm string) (*acmePeer, error) {
	a, err := newAuthority(dir)
	if err != nil {
		return nil, err
	}
	p := &acmePeer{}
	// A look at an order while it is finished can lock up, too: pebble gets the time to finish it.
	p.directory, p.pause, p.apart = "/dir", 20*time.Millisecond, new(sync.RWMutex)
	if p.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	return p, startPeer(ctx, p, a, dir, jsonObject{"pebble": jsonObject{"listenAddress": p.addr, "certificate": a.files["tls.crt"], "privateKey": a.files["tls.key"],
		"httpPort": 5002, "tlsPort": 5001, "keyAlgorithm": algorithm, "profiles": jsonObject{"default": jsonObject{"validityPeriod": 86400}}}},
		program, []string{"-config", "CONFIG"},
		[]string{"PEBBLE_VA_ALWAYS_VALID=1", "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0"})
}

// startStep is smallstep's step-ca with badger and an ACME provisioner, which asks http-01 of our answerer.
func startStep(ctx context.Context, program, dir string) (*acmePeer, error) {
	a, err := newAuthority(dir)
	if err != nil {
		return nil, err
	}
	p := &acmePeer{}
	p.directory, p.pause = "/acme/bench/directory", 5*time.Millisecond
	if p.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	if p.answers, err = newAnswerer(); err != nil {
		return nil, err
	}
	return p, startPeer(ctx, p, a, dir, jsonObject{"root": a.files["root.crt"], "crt": a.files["issuing.crt"], "key": a.files["issuing.key"], "address": p.addr,
		"dnsNames": []string{"127.0.0.1"}, "db": jsonObject{"type": "badgerv2", "dataSource": filepath.Join(dir, "db")},
		"authority": jsonObject{"provisioners": []jsonObject{{"type": "ACME", "name": "bench"}}}},
		program, []string{"--insecure", "--acme-http-port", p.answers.port, "CONFIG"}, []string{"STEPPATH=" + dir})
}

// answerer answers http-01 on a port of this host.
type answerer struct {
	port   string
	server *http.Server
	mu     sync.Mutex
	known  map[string]string // token to key authorization
}

func newAnswerer() (*answerer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &answerer{known: map[string]string{}}
	if _, a.port, err = net.SplitHostPort(l.Addr().String()); err != nil {
		return nil, err
	}
	a.server = &http.Server{Handler: a, ReadHeaderTimeout: requestTimeout}
	go func() {
		if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			progress("http-01 is not answered any more: %v", err)
		}
	}()
	return a, nil
}

// expect makes the answer to a challenge known.
func (a *answerer) expect(token, keyAuthorization string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[token] = keyAuthorization
}

func (a *answerer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.URL.Path, "/.well-known/acme-challenge/")
	a.mu.Lock()
	answer, ok := a.known[token]
	delete(a.known, token)
	a.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	io.WriteString(w, answer)
}
