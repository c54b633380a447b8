package main

import (
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

	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/internal/der"
)

// What relying parties hold in files, and fetch.

const (
	maxList      = 256 << 20 // octets of a CRL or pack read
	fetchTimeout = time.Minute
)

// readCerts reads certificates, PEM (any number) or DER (one).
func readCerts(file string) ([]*x509.Certificate, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	certs, err := parseCerts(raw)
	if err != nil {
		return nil, fmt.Errorf("the certificates of %s cannot be read: %w", file, err)
	}
	return certs, nil
}

// parseCerts reads one certificate in DER, or any number in PEM. Other PEM beside them, such as a key, is passed over.
func parseCerts(raw []byte) (certs []*x509.Certificate, err error) {
	if isDER(raw) {
		cert, err := der.Certificate(raw)
		return []*x509.Certificate{cert}, err
	}
	blocks, err := der.PEM(raw)
	if err != nil {
		return nil, err
	}
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := der.Certificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("it has none in DER, and no PEM block CERTIFICATE")
	}
	return certs, nil
}

func certPool(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}

// isDER tells DER from PEM: what is read here is a SEQUENCE, which no text begins with.
func isDER(raw []byte) bool { return len(raw) > 0 && raw[0] == 0x30 }

// readPEM reads files one after the other, and gives what PEM they hold and nothing else. DER is taken for kind.
func readPEM(kind string, files []string, read func(file string) ([]byte, error)) (string, error) {
	var all strings.Builder
	for _, file := range files {
		raw, err := read(file)
		if err != nil {
			return "", err
		}
		blocks := []*pem.Block{{Type: kind, Bytes: raw}}
		if !isDER(raw) {
			if blocks, err = der.PEM(raw); err == nil && len(blocks) == 0 {
				err = fmt.Errorf("it holds no %s in DER or PEM", kind)
			}
			if err != nil {
				return "", fmt.Errorf("%s: %w", file, err)
			}
		}
		for _, block := range blocks {
			if err := pem.Encode(&all, block); err != nil {
				return "", fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return all.String(), nil
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
	if isDER(raw) {
		list, err := crl.Parse(raw)
		return []*crl.List{list}, err
	}
	blocks, err := der.PEM(raw)
	if err == nil && len(blocks) == 0 {
		err = errors.New("it holds no CRL in DER or PEM")
	}
	if err != nil {
		return nil, err
	}
	for _, block := range blocks {
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("a %.40q stands among the CRLs", block.Type)
		}
		list, err := crl.Parse(block.Bytes)
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
		if der.SameName(c.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(c) == nil {
			return c
		}
	}
	return nil
}
