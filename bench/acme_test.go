package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/attest"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// Both loads of our own, against the server that they are for.
func TestACME(t *testing.T) {
	c := newCore(t)
	tpm := must(newSoftTPM())(t)
	must(c.AddManufacturer(t.Context(), ca.Manufacturer{Name: "bench", Format: "tpm", Level: "tpm", Anchors: [][]byte{tpm.authority.Root.Raw}}, "admin:bench"))(t)
	attesting := must(c.AddCredential(t.Context(), device.Credential{Group: "tpms", Names: []string{"tpm-*"}, Level: "tpm", Uses: 100}, time.Hour, "admin:bench"))(t)
	server := httptest.NewTLSServer(acme.New(acme.Options{Authority: c.Service, Ledger: c.store, Hosts: []string{"127.0.0.1"}, Verifiers: []attest.Verifier{attest.TPM()}, Logger: quiet()}))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	at := target{addr: server.Listener.Addr().String(), roots: roots}

	for name, test := range map[string]struct {
		grant *ca.Grant
		id    string
		order func(id string) (*acmeOrder, error)
		trips int // order, authorization, finalize, certificate; and the challenge
	}{
		"binding":          {c.grant, "bench", boundOrder, 4},
		"device-attest-01": {attesting, "tpm", tpm.order, 5},
	} {
		t.Run(name, func(t *testing.T) {
			s := must(ourServer(at, test.grant.ACME))(t)
			l := acmeLoad{clients: must(s.accounts(t.Context(), 2))(t), prepare: func(batch, n int) (*acmeOrder, error) {
				return test.order(fmt.Sprintf("%s-%d-%d", test.id, batch, n))
			}}
			members := must(l.members(7, 5))(t)
			before, trips := c.Stats().Issued, l.trips()
			nothing := func() error { return nil }
			w := work{target: at, connection: keptAlive, devices: members, limit: time.Minute}
			o := must(w.run(t.Context(), nothing, nothing))(t)
			if issued := c.Stats().Issued - before; !o.short || o.done < 3 || int64(o.done) != issued {
				t.Errorf("%d orders of %d, %d certificates", o.done, 6, issued)
			}
			if got := l.trips() - trips; got != o.done*test.trips {
				t.Errorf("%d requests for %d orders, want %d each", got, o.done, test.trips)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		s := must(ourServer(at, c.grant.ACME))(t)
		a := must(s.register(t.Context()))(t)
		conn := newClient(at, nil, false)
		defer conn.close()
		if err := a.order(t.Context(), conn, must(boundOrder("another-1"))(t)); err == nil || !strings.Contains(err.Error(), "another-1") {
			t.Errorf("an order for a device that is not of the group: %v", err)
		}
	})
}

// A server that needs a while, and one that gives another key's certificate.
func TestACMEOrderWaits(t *testing.T) {
	o := must(boundOrder("bench-1"))(t)
	o.challenge, o.met = "http-01", func(token, keyAuthorization string) ([]byte, error) {
		if token != "T" || !strings.HasPrefix(keyAuthorization, "T.") {
			return nil, errors.New("the challenge is for " + keyAuthorization)
		}
		return []byte("{}"), nil
	}
	key := must(newKey())(t)
	for name, test := range map[string]struct {
		key   []byte // in the certificate
		final string
		want  string
	}{
		"polled":         {o.spki, "valid", ""},
		"another key":    {must(x509.MarshalPKIXPublicKey(&key.PublicKey))(t), "valid", "no certificate for the key"},
		"order rejected": {o.spki, "invalid", "the order is invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			looks := map[string]int{}
			var at string
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				looks[r.URL.Path]++
				w.Header().Set("Replay-Nonce", "N")
				w.Header().Set("Location", at+"/order/1")
				status := func(early, late string) string {
					if looks[r.URL.Path] < 3 {
						return early
					}
					return late
				}
				switch r.URL.Path {
				case "/new-order":
					fmt.Fprintf(w, `{"status":"pending","authorizations":["%s/authorization"],"finalize":"%s/finalize"}`, at, at)
				case "/authorization":
					fmt.Fprintf(w, `{"status":%q,"challenges":[{"type":"dns-01"},{"type":"http-01","url":"%s/challenge","token":"T","status":"pending"}]}`, status("pending", "valid"), at)
				case "/challenge":
					io.WriteString(w, `{"status":"processing"}`)
				case "/finalize":
					io.WriteString(w, `{"status":"processing"}`)
				case "/order/1":
					fmt.Fprintf(w, `{"status":%q,"certificate":"%s/certificate"}`, status("processing", test.final), at)
				case "/certificate":
					pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: test.key})
				default:
					http.NotFound(w, r)
				}
			}))
			defer server.Close()
			at = server.URL
			s := &acmeServer{target: target{addr: server.Listener.Addr().String(), roots: x509.NewCertPool()}, pause: time.Millisecond}
			s.roots.AddCert(server.Certificate())
			a := &acmeAccount{server: s, key: must(newKey())(t), kid: at + "/account/1", newOrder: at + "/new-order"}
			conn := newClient(s.target, nil, false)
			defer conn.close()
			err := a.order(t.Context(), conn, o)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if looks["/authorization"] != 3 || looks["/order/1"] != 3 || looks["/challenge"] != 1 {
				t.Errorf("requests: %v", looks)
			}
		})
	}
}

// What a peer's clients must trust, and what it asks for http-01.
func TestACMEPeer(t *testing.T) {
	a := must(newAuthority(t.TempDir() + "/peer"))(t)
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	pool.AddCert(a.root)
	between.AddCert(a.issuing)
	if _, err := a.tls.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, DNSName: "127.0.0.1"}); err != nil {
		t.Error(err)
	}
	answers := must(newAnswerer())(t)
	defer answers.server.Close()
	answers.expect("T", "T.thumbprint")
	ask := func() (string, error) {
		return get(context.WithoutCancel(t.Context()), "http://127.0.0.1:"+answers.port+"/.well-known/acme-challenge/T")
	}
	if got, err := ask(); err != nil || got != "T.thumbprint" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := ask(); err == nil {
		t.Errorf("asked again, it still says %q", got)
	}
}
