package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// estFlood sends requests to an EST operation, made beforehand, over and over.
func (h *home) estFlood(client *http.Client, operation string, g grant, requests [][]byte) attack {
	var next atomic.Int64
	return attack{workers: 16, done: client.CloseIdleConnections, once: func(ctx context.Context, _ int) bool {
		status, _, err := h.est(ctx, client, operation, g, requests[int(next.Add(1))%len(requests)])
		return err == nil && status == http.StatusOK
	}}
}

// est sends one request to an EST operation; without a grant the connection's certificate has to do.
func (h *home) est(ctx context.Context, client *http.Client, operation string, g grant, body []byte) (status int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+h.https+"/.well-known/est/"+operation, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/pkcs10")
	if g.Reference != "" {
		r.SetBasicAuth(g.Reference, g.Secret)
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// csr is a request for a device with a new key, as EST wants it.
func csr(name string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	return []byte(base64.StdEncoding.EncodeToString(der)), err
}

// csrs are as many requests with keys of their own; name has room for a number.
func csrs(n int, name string) (all [][]byte, err error) {
	for i := range n {
		body, err := csr(strings.ReplaceAll(name, "%d", fmt.Sprint(i)))
		if err != nil {
			return nil, err
		}
		all = append(all, body)
	}
	return all, nil
}

// renewals has one enrolled device renew in a loop, each time with another key.
func renewals(h *home) (attack, error) {
	dir := filepath.Join(h.parent, "loop")
	out, err := h.command("device", "add", "--id", "loop", "--level", "software", "--json")
	if err != nil {
		return attack{}, err
	}
	var g grant
	if err := json.Unmarshal(out, &g); err != nil {
		return attack{}, err
	}
	secret := filepath.Join(h.parent, "secret")
	if err := os.WriteFile(secret, []byte(g.Secret), 0o600); err != nil {
		return attack{}, err
	}
	enroll := exec.Command(h.program, "enroll", "--protocol", "est", "--server", "https://"+h.https, "--roots", filepath.Join(h.dir, "root.crt"),
		"--id", "loop", "--reference", g.Reference, "--secret-file", secret, "--dir", dir)
	if out, err := enroll.CombinedOutput(); err != nil {
		return attack{}, fmt.Errorf("deviceca enroll: %w\n%s", err, out)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return attack{}, err
	}
	requests, err := csrs(256, "loop")
	return h.estFlood(h.client(16, pair), "simplereenroll", grant{}, requests), err
}

// refusals has the holder of a group's secret ask for devices that are not the group's.
func refusals(h *home) (attack, error) {
	g, err := h.group("outside", "outside-*")
	if err != nil {
		return attack{}, err
	}
	requests, err := csrs(256, "other-%d")
	return h.estFlood(h.client(16), "simpleenroll", g, requests), err
}

// newcomers has the holder of a group's secret enrol as many devices as it can, each of them within its budget.
func newcomers(h *home) (attack, error) {
	g, err := h.group("crowd", "crowd-*")
	if err != nil {
		return attack{}, err
	}
	requests, err := csrs(2048, "crowd-%d")
	return h.estFlood(h.client(16), "simpleenroll", g, requests), err
}

// nonces has strangers ask for ACME nonces.
func nonces(h *home) (attack, error) {
	client := h.client(16)
	return attack{workers: 16, done: client.CloseIdleConnections, once: func(ctx context.Context, _ int) bool {
		r, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://"+h.https+"/acme/new-nonce", nil)
		if err != nil {
			return false
		}
		resp, err := client.Do(r)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}}, nil
}
