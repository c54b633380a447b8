package ocsp

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Renewal comes at half of the life; a CA that is away is asked again, ever
// more slowly; the old certificate serves meanwhile, to its end.
func TestDelegateRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t, "issuing-1", time.Now)
		c.life = 48 * time.Hour
		d := NewDelegate(DelegateOptions{Issuer: c.name, IssuerCert: c.cert, Certifier: c, Log: quiet})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go d.Run(ctx)
		synctest.Wait()
		first, err := d.Credential(ctx)
		if err != nil || c.issued != 1 {
			t.Fatal(err, c.issued)
		}
		c.setAway(ca.Away("the token", nil))
		time.Sleep(30 * time.Hour)
		if got, err := d.Credential(ctx); err != nil || got != first {
			t.Fatal("the first is good for 48 hours", err)
		}
		c.setAway(nil)
		time.Sleep(lastPause)
		second, err := d.Credential(ctx)
		if err != nil || second == first || c.issued != 2 {
			t.Fatal(err, c.issued)
		}
		c.setAway(ca.Away("the token", nil))
		time.Sleep(49 * time.Hour)
		if _, err := d.Credential(ctx); ca.KindOf(err) != ca.Unavailable {
			t.Error(err)
		}
		c.setAway(nil)
		time.Sleep(lastPause)
		if _, err := d.Credential(ctx); err != nil || c.issued != 3 {
			t.Error(err, c.issued)
		}
	})
}

// Without Run, the first asker fetches, and one that comes after half of the
// life sets off a renewal without waiting for it.
func TestDelegateWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t, "issuing-1", time.Now)
		key := newKey(t)
		d := NewDelegate(DelegateOptions{Issuer: c.name, IssuerCert: c.cert, Certifier: c, Key: key, Log: quiet})
		first, err := d.Credential(t.Context())
		if err != nil || !first.check || first.key != key {
			t.Fatal("a given key is used, and its signatures checked", err)
		}
		time.Sleep(8 * 24 * time.Hour)
		if got, err := d.Credential(t.Context()); err != nil || got != first {
			t.Error(err)
		}
		synctest.Wait()
		if got, err := d.Credential(t.Context()); err != nil || got == first || c.issued != 2 {
			t.Error("not renewed", err)
		}
	})
}

// Answers never outlive the responder's certificate, live and unknown ones included.
func TestAnswersEndWithDelegate(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	c.life = 2 * time.Minute
	r := newResponder(t, c, nil)
	s := c.issue(1)
	for _, in := range [][]byte{
		request(t, c, SHA1, nil, s.Big()), request(t, c, SHA1, make([]byte, 8), s.Big()), request(t, c, SHA1, nil, serial(99).Big()),
	} {
		resp := ask(t, r, c, in)
		cert, err := x509.ParseCertificate(resp.Certificates[0])
		if err != nil {
			t.Fatal(err)
		}
		if one := resp.Responses[0]; one.NextUpdate.After(cert.NotAfter) || one.NextUpdate.Before(time.Now()) {
			t.Errorf("nextUpdate %s, certificate to %s", one.NextUpdate, cert.NotAfter)
		}
	}
	cred, err := r.issuers.Load().list[0].signer.Credential(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cred.sign(time.Now(), []SingleResponse{{NextUpdate: cred.NotAfter().Add(time.Second)}}, nil); err == nil {
		t.Error("signed past its end")
	}
}

func TestNewCredentialRefuses(t *testing.T) {
	c, other := newCA(t, "issuing-1", time.Now), newCA(t, "other", time.Now)
	key := newKey(t)
	cert := func(from *testCA, edit func(*x509.Certificate)) *x509.Certificate {
		raw, err := from.responderCert(key.Public(), edit)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	same := func(*x509.Certificate) {}
	if _, err := NewCredential(key, cert(c, same), c.cert, true); err != nil {
		t.Error(err)
	}
	if _, err := NewCredential(newKey(t), cert(c, same), c.cert, true); err == nil {
		t.Error("another key")
	}
	if _, err := NewCredential(key, cert(other, same), c.cert, true); err == nil {
		t.Error("another issuer")
	}
	if _, err := NewCredential(key, cert(c, func(x *x509.Certificate) { x.ExtKeyUsage = nil }), c.cert, true); err == nil {
		t.Error("not for OCSP")
	}
}

func TestVerifyRefuses(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	s, key := c.issue(1), newKey(t)
	delegate := func(edit func(*x509.Certificate)) *Credential {
		raw, err := c.responderCert(key.Public(), edit)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		cred, err := NewCredential(key, cert, c.cert, false)
		if err != nil {
			t.Fatal(err)
		}
		return cred
	}
	same := func(*x509.Certificate) {}
	own, err := NewCredential(c.key, c.cert, c.cert, true)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	fresh := func(single *SingleResponse) {}
	tests := []struct {
		name  string
		cred  *Credential
		edit  func(*SingleResponse)
		twist func([]byte)
		says  string // "" accepts
	}{
		{"delegate", delegate(same), fresh, nil, ""},
		{"issuer itself", own, fresh, nil, ""},
		{"no nocheck, nowhere to check", delegate(func(x *x509.Certificate) { x.ExtraExtensions = nil }), fresh, nil, ""},
		{"no nocheck", delegate(func(x *x509.Certificate) {
			x.ExtraExtensions, x.CRLDistributionPoints = nil, []string{"http://127.0.0.1/x.crl"}
		}), fresh, nil, "nocheck"},
		{"delegate expired", delegate(func(x *x509.Certificate) { x.NotAfter = now.Add(-time.Second) }), fresh, nil, "expired"},
		{"delegate not yet valid", delegate(func(x *x509.Certificate) { x.NotBefore = now.Add(time.Hour) }), fresh, nil, "not valid yet"},
		{"delegate not for signatures", delegate(func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageKeyAgreement }), fresh, nil, "not for signatures"},
		{"delegate, unknown critical extension", delegate(func(x *x509.Certificate) {
			x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}), fresh, nil, "critical"},
		{"too old", own, func(s *SingleResponse) { s.ThisUpdate, s.NextUpdate = now.Add(-2*time.Hour), now.Add(-time.Hour) }, nil, "ended"},
		{"from the future", own, func(s *SingleResponse) { s.ThisUpdate = now.Add(10 * time.Minute) }, nil, "future"},
		{"another issuer's certificate", own, func(s *SingleResponse) {
			other := newCA(t, "other", time.Now)
			s.ID.Raw = certIDRaw(t, other, 1)
		}, nil, "another issuer"},
		{"signature twisted", own, fresh, func(b []byte) { b[len(b)-1] ^= 1 }, "signature"},
		{"content twisted", delegate(same), fresh, func(b []byte) {
			i := strings.Index(string(b), string([]byte{0x80, 0})) // good
			b[i] = 0x82
		}, "signature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			single := SingleResponse{ID: CertID{Raw: certIDRaw(t, c, 1)}, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
			if tt.cred.NotAfter().Before(single.NextUpdate) {
				single.NextUpdate = tt.cred.NotAfter()
			}
			tt.edit(&single)
			raw, err := tt.cred.sign(now, []SingleResponse{single}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.twist != nil {
				tt.twist(raw)
			}
			resp, err := ParseResponse(raw)
			if err != nil {
				t.Fatal(err)
			}
			err = Verify(resp, c.cert, now)
			if tt.says == "" {
				if err != nil || resp.Find(c.cert, s.Big()) == nil || resp.Find(c.cert, serial(2).Big()) != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, ErrNotTrusted) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
	for _, status := range []ResponseStatus{MalformedRequest, InternalError, TryLater, SigRequired, Unauthorized} {
		resp, err := ParseResponse(ErrorResponse(status))
		if err != nil || resp.Status != status || Verify(resp, c.cert, now) == nil {
			t.Error(status, err)
		}
	}
}

func certIDRaw(t *testing.T, c *testCA, index uint64) []byte {
	t.Helper()
	q, err := ParseRequest(request(t, c, SHA1, nil, serial(index).Big()))
	if err != nil {
		t.Fatal(err)
	}
	return q.IDs()[0].Raw
}
