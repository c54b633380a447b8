package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"go.step.sm/crypto/pemutil"

	"github.com/deviceca/deviceca/crl"
)

// What relying parties hold in files, and fetch.

const (
	maxList      = 256 << 20 // octets of a CRL or pack read
	fetchTimeout = time.Minute
)

// readCerts reads certificates, PEM (any number) or DER (one).
func readCerts(file string) ([]*x509.Certificate, error) {
	certs, err := pemutil.ReadCertificateBundle(file)
	if err != nil {
		return nil, fmt.Errorf("%s holds no certificates: %w", file, err)
	}
	return certs, nil
}

// readSource reads a file, or fetches a URL.
func readSource(ctx context.Context, source string) ([]byte, error) {
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		f, err := os.Open(source)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readAtMost(f, source)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", source, resp.Status)
	}
	return readAtMost(resp.Body, source)
}

func readAtMost(r io.Reader, source string) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxList+1))
	if err == nil && len(raw) > maxList {
		err = errors.New("more than 256 MiB")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return raw, nil
}

// readCRL reads a CRL, DER or PEM, from a file or URL.
func readCRL(ctx context.Context, source string) (*crl.List, error) {
	raw, err := readSource(ctx, source)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN")) {
		block, _ := pem.Decode(raw)
		if block == nil || block.Type != "X509 CRL" {
			return nil, fmt.Errorf("%s holds no CRL", source)
		}
		raw = block.Bytes
	}
	list, err := crl.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return list, nil
}

// issuerAmong finds the certificate that signed cert.
func issuerAmong(cert *x509.Certificate, candidates []*x509.Certificate) *x509.Certificate {
	for _, c := range candidates {
		if bytes.Equal(c.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(c) == nil {
			return c
		}
	}
	return nil
}
