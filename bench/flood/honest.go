package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// honest is a line of new devices, each of which enrols once over EST on a connection of its
// own: as much work as a device can cause, and within every budget of a device.
type honest struct {
	h     *home
	grant grant
	next  int
}

func newHonest(h *home) (*honest, error) {
	g, err := h.group("honest", "honest-*")
	return &honest{h: h, grant: g}, err
}

// pause lies between two enrolments: the device is no flood.
const pause = 50 * time.Millisecond

// latencies are those of what succeeded, sorted, and how much did not.
type latencies struct {
	took   []time.Duration
	failed int
	last   error
}

// at is a percentile.
func (l latencies) at(percent int) time.Duration {
	if len(l.took) == 0 {
		return time.Hour // nothing succeeded: longer than any bound
	}
	return l.took[min(len(l.took)*percent/100, len(l.took)-1)]
}

func (d *honest) measure(ctx context.Context, duration time.Duration) (l latencies, err error) {
	for end := time.Now().Add(duration); time.Now().Before(end); {
		request, err := d.request(ctx)
		if err != nil {
			return l, err
		}
		began := time.Now()
		if err := d.enrol(request); err != nil {
			l.failed, l.last = l.failed+1, err
		} else {
			l.took = append(l.took, time.Since(began))
		}
		select {
		case <-ctx.Done():
			return l, ctx.Err()
		case <-time.After(pause):
		}
	}
	slices.Sort(l.took)
	return l, nil
}

func (d *honest) request(ctx context.Context) (*http.Request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	d.next++
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: fmt.Sprintf("honest-%d", d.next)}}, key)
	if err != nil {
		return nil, err
	}
	body := []byte(base64.StdEncoding.EncodeToString(csr))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+d.h.https+"/.well-known/est/simpleenroll", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/pkcs10")
	r.SetBasicAuth(d.grant.Reference, d.grant.Secret)
	return r, nil
}

func (d *honest) enrol(r *http.Request) error {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: d.h.tls(), DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("HTTP %s: %s", resp.Status, body)
	}
	return err
}
