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

// readCRL reads the one CRL, DER or PEM, of a file or URL.
func readCRL(ctx context.Context, source string) (*crl.List, error) {
	raw, err := readSource(ctx, source)
	if err != nil {
		return nil, err
	}
	lists, err := parseCRLs(raw)
	if err == nil && len(lists) > 1 {
		err = fmt.Errorf("it holds %d CRLs, and one is due", len(lists))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return lists[0], nil
}

// parseCRLs reads one CRL in DER, or any number in PEM, all of them or none.
func parseCRLs(raw []byte) (lists []*crl.List, err error) {
	blocks := [][]byte{raw}
	if len(raw) == 0 || raw[0] != 0x30 { // SEQUENCE
		blocks = nil
		for rest := raw; ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type != "X509 CRL" {
				return nil, fmt.Errorf("a %.40q stands among the CRLs", block.Type)
			}
			blocks = append(blocks, block.Bytes)
		}
		if begun := bytes.Count(raw, []byte("-----BEGIN ")); begun != len(blocks) || begun == 0 {
			return nil, errors.New("it holds no CRL in DER or PEM, or one that is damaged")
		}
	}
	for _, block := range blocks {
		list, err := crl.Parse(block)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	return lists, nil
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
