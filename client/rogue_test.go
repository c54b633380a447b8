package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/cms"
)

// hugeRoot is a root certificate with an RSA key of that size and exponent, and a signature that a verifier must work
// through to find out that it is none.
func hugeRoot(t testing.TB, bits, exponent int) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	small := sign(t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "huge root"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}, nil, key.Public(), key)
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits)-1)
	n.SetBit(n, 0, 1)
	spki, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: exponent})
	if err != nil {
		t.Fatal(err)
	}
	tbs, list := cryptobyte.String(small.RawTBSCertificate), cryptobyte.String(nil)
	if !tbs.ReadASN1(&list, asn1.SEQUENCE) {
		t.Fatal("not a certificate")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(bytes.Replace(list, small.RawSubjectPublicKeyInfo, spki, 1))
		})
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // sha256WithRSAEncryption
			b.AddBytes([]byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b, 5, 0})
		})
		b.AddASN1BitString(make([]byte, bits/8))
	})
	der := b.BytesOrPanic()
	if _, err := x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return der
}

// raw answers with certificates in DER, whatever they are.
func (s *estServer) raw(raw ...[]byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/pkcs7-mime")
		io.WriteString(w, base64.StdEncoding.EncodeToString(cms.CertsOnly(raw...))+"\n")
	}
}

// TestPinComesFirst: somebody who is not the CA gets no work done. To verify this one certificate takes minutes.
func TestPinComesFirst(t *testing.T) {
	ca := newTestCA(t, "good")
	s := newESTServer(t, ca, nil)
	s.ops["cacerts"] = s.raw(hugeRoot(t, 1<<20, 65537))
	c := s.config(t)
	c.Trust = Trust{RootSHA256: digest(ca.root)}
	start := time.Now()
	_, err := Run(t.Context(), c)
	wantError(t, err, Untrusted, "SHA-256")
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	// Nor does a pinned one that is beyond all bounds.
	huge := hugeRoot(t, 1<<17, 65537)
	cert, err := x509.ParseCertificate(huge)
	if err != nil {
		t.Fatal(err)
	}
	s.ops["cacerts"] = s.raw(huge)
	c.Trust = Trust{RootSHA256: digest(cert)}
	_, err = Run(t.Context(), c)
	wantError(t, err, BadReply, "RSA key has 131072 bits")
}

// TestCertificatesAreBounded: also a server that is trusted sends what can be worked on, or nothing is.
func TestCertificatesAreBounded(t *testing.T) {
	ca := newTestCA(t, "good")
	roots := make([][]byte, maxAnchors+1)
	for i := range roots {
		roots[i] = newTestCA(t, fmt.Sprint("root ", i)).root.Raw
	}
	many := func(n int) (out [][]byte) {
		for i := range n {
			c := *ca.issuing
			c.SerialNumber = big.NewInt(int64(i + 1))
			out = append(out, sign(t, &c, ca.root, ca.issuingKey.Public(), ca.rootKey).Raw)
		}
		return out
	}
	long := ca.leaf(t, "long", newKey(t).Public(), func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidP256, Value: make([]byte, maxCertificate)}}
	})
	for _, tt := range []struct {
		name, op string
		raw      [][]byte
		text     string
	}{
		{"a key of 16384 bits", "cacerts", [][]byte{ca.root.Raw, hugeRoot(t, 16384, 65537)}, "RSA key has 16384 bits"},
		{"an exponent of 31 bits", "cacerts", [][]byte{ca.root.Raw, hugeRoot(t, 2048, 1<<31-1)}, "RSA exponent has 31 bits"},
		{"a long certificate", "cacerts", [][]byte{ca.root.Raw, long.Raw}, "octets, and 65536 is the most"},
		{"too many roots", "cacerts", roots, "lists 17 roots"},
		{"too many certificates", "cacerts", many(maxCACertCount + 1), "129 certificates"},
		{"too many in a reply", "simpleenroll", many(maxReplyCerts + 1), "33 certificates"},
		{"a huge key in a reply", "simpleenroll", [][]byte{hugeRoot(t, 1<<19, 65537)}, "octets, and 65536 is the most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newESTServer(t, ca, nil)
			s.ops[tt.op] = s.raw(tt.raw...)
			c := s.config(t)
			_, err := Run(t.Context(), c)
			wantError(t, err, BadReply, tt.text)
			wantNoIdentity(t, c.Dir)
		})
	}
	t.Run("acme", func(t *testing.T) {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hugeRoot(t, 16384, 65537)})
		if _, err := parseChain(text); err == nil || !strings.Contains(err.Error(), "16384 bits") {
			t.Errorf("parseChain: %v", err)
		}
	})
}

// TestRootsAreCAs: what is no CA's certificate is no trust anchor, wherever it comes from.
func TestRootsAreCAs(t *testing.T) {
	ca := newTestCA(t, "good")
	s, a := newESTServer(t, ca, nil), newACMEServer(t, ca)
	leaf := ca.leaf(t, "lamp-1", newKey(t).Public(), nil)
	noSign := sign(t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "crl signer"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign}, nil, ca.rootKey.Public(), ca.rootKey)
	for name, c := range map[string]Config{"est": s.config(t), "acme": a.config(t), "cmp": {Dir: t.TempDir(), Protocol: "cmp", Server: "http://127.0.0.1:1", Device: "sensor-1"}} {
		for what, other := range map[string]*x509.Certificate{"CN=lamp-1": leaf, "CN=crl signer": noSign} {
			c.Trust = Trust{Roots: []*x509.Certificate{ca.root, other}}
			_, err := Run(t.Context(), c)
			wantError(t, err, Usage, "certificate 2, of \""+what+"\", is no trust anchor")
			if HintOf(err) == "" {
				t.Errorf("%s: no hint", name)
			}
		}
	}
	if len(s.requests) != 0 {
		t.Error("the server was asked")
	}
	t.Run("a file", func(t *testing.T) {
		path := t.TempDir() + "/roots.pem"
		writeFile(t, path, encodeCertificates(ca.root, leaf), 0o644)
		_, err := ReadRoots(path)
		wantError(t, err, Local, path+`: certificate 2, of "CN=lamp-1"`)
	})
	t.Run("text around", func(t *testing.T) {
		path, text := t.TempDir()+"/roots.pem", string(encodeCertificates(ca.root))
		for _, whole := range []string{"\ufeff" + text, "the root\n" + text + "its end", "\ufeff" + text + "\ufeff" + text} {
			writeFile(t, path, []byte(whole), 0o644)
			if roots, err := ReadRoots(path); err != nil || len(roots) != strings.Count(whole, "BEGIN") {
				t.Errorf("%d certificates of %q…: %v", len(roots), whole[:12], err)
			}
		}
		// One that cannot be read is not passed over.
		writeFile(t, path, []byte(text+strings.Replace(text, "MII", "M!I", 1)), 0o644)
		_, err := ReadRoots(path)
		wantError(t, err, Local, "1 of 2 PEM blocks cannot be read")
	})
	t.Run("roots.pem", func(t *testing.T) {
		c := s.config(t)
		mustRun(t, c)
		writeFile(t, c.Dir+"/"+RootsFile, encodeCertificates(ca.root, leaf), 0o644)
		c.Renew = true
		_, err := Run(t.Context(), c)
		wantError(t, err, Local, `roots.pem: certificate 2, of "CN=lamp-1"`)
	})
	// An Enroller of others: the certificate that it hands out is among its roots.
	f := &fakeCA{t: t, ca: ca, validity: time.Hour}
	c := Config{Dir: t.TempDir(), Device: "sensor-1", Enroller: &ownRoot{fakeCA: f}}
	_, err := Run(t.Context(), c)
	wantError(t, err, BadReply, "no trust anchor")
	wantNoIdentity(t, c.Dir)
}

// ownRoot lists a device's certificate as a root.
type ownRoot struct {
	*fakeCA
	ca CACerts
}

func (o *ownRoot) CACerts(ctx context.Context) (*CACerts, error) {
	got, err := o.fakeCA.CACerts(ctx)
	o.ca = *got
	return &o.ca, err
}

func (o *ownRoot) Enroll(ctx context.Context, r *Request) (*Reply, error) {
	reply, err := o.fakeCA.Enroll(ctx, r)
	if err == nil {
		o.ca.Roots = append(o.ca.Roots, reply.Certificates...)
	}
	return reply, err
}

// TestAnchorsAreBounded: a CA that shows another root each time fills no device.
func TestAnchorsAreBounded(t *testing.T) {
	ca := newTestCA(t, "good")
	s := newESTServer(t, ca, nil)
	c := s.config(t)
	c.Renew = true
	for i := range maxAnchors + 5 {
		next := newTestCA(t, fmt.Sprint("next ", i))
		s.ops["cacerts"] = s.raw(ca.root.Raw, ca.issuing.Raw, next.root.Raw)
		mustRun(t, c)
	}
	roots, err := (&Store{Dir: c.Dir}).Roots()
	if err != nil || len(roots) != maxAnchors || !slices.ContainsFunc(roots, ca.root.Equal) {
		t.Errorf("%d anchors, %v", len(roots), err)
	}
}

func TestKeepAnchors(t *testing.T) {
	now := time.Now()
	key := newKey(t)
	root := func(name string, key crypto.Signer, from, to time.Duration) *x509.Certificate {
		return sign(t, &x509.Certificate{SerialNumber: serialNumber(t), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(from), NotAfter: now.Add(to),
			IsCA: true, BasicConstraintsValid: true}, nil, key.Public(), key)
	}
	const h = time.Hour
	listed, other := root("A", key, -h, 100*h), root("B", newKey(t), -h, 50*h)
	older, next := root("A", key, -2*h, 10*h), root("A", key, h, 200*h)
	expired, sameName := root("C", newKey(t), -3*h, -h), root("A", newKey(t), -h, 10*h)
	var full []*x509.Certificate
	for i := range maxAnchors {
		full = append(full, root(fmt.Sprint(i), newKey(t), -h, time.Duration(i+1)*h))
	}
	for _, tt := range []struct {
		name         string
		pin          *x509.Certificate
		listed, kept []*x509.Certificate
		want         []*x509.Certificate
	}{
		{"the first", nil, []*x509.Certificate{listed}, nil, []*x509.Certificate{listed}},
		{"another is kept", nil, []*x509.Certificate{listed}, []*x509.Certificate{other, listed}, []*x509.Certificate{listed, other}},
		{"expired", nil, []*x509.Certificate{listed}, []*x509.Certificate{expired}, []*x509.Certificate{listed}},
		{"expired and listed", nil, []*x509.Certificate{listed, expired}, nil, []*x509.Certificate{listed}},
		{"superseded", nil, []*x509.Certificate{listed}, []*x509.Certificate{older}, []*x509.Certificate{listed}},
		{"superseded and pinned", older, []*x509.Certificate{listed}, []*x509.Certificate{older}, []*x509.Certificate{listed, older}},
		{"not superseded yet", nil, []*x509.Certificate{listed, next}, nil, []*x509.Certificate{listed, next}},
		{"same name, another key", nil, []*x509.Certificate{listed}, []*x509.Certificate{sameName}, []*x509.Certificate{listed, sameName}},
		{"the shortest leaves", nil, []*x509.Certificate{listed}, full, append([]*x509.Certificate{listed}, reversed(full[1:])...)},
		{"not the pinned one", full[0], []*x509.Certificate{listed}, full, append([]*x509.Certificate{listed, full[0]}, reversed(full[2:])...)},
	} {
		var trust Trust
		if tt.pin != nil {
			trust.RootSHA256 = digest(tt.pin)
		}
		if got := trust.keepAnchors(tt.listed, tt.kept, now); !slices.EqualFunc(got, tt.want, (*x509.Certificate).Equal) {
			t.Errorf("%s: %d anchors, want %d, or another order", tt.name, len(got), len(tt.want))
		}
	}
}

func reversed(certs []*x509.Certificate) []*x509.Certificate {
	out := slices.Clone(certs)
	slices.Reverse(out)
	return out
}

// TestAbsurdValidity: nothing takes the place of a certificate that works.
func TestAbsurdValidity(t *testing.T) {
	ca := newTestCA(t, "good")
	now := time.Now().Truncate(time.Second)
	for _, tt := range []struct {
		name     string
		from, to time.Time
		text     string // "" is accepted
	}{
		{"not yet for years", now.AddDate(1, 0, 0), now.AddDate(2, 0, 0), "valid only from"},
		{"ends before it begins", now.Add(time.Hour), now.Add(time.Minute), "before it begins"},
		{"a clock a little behind", now.Add(time.Minute), now.Add(time.Hour), ""},
		{"no expiration date", now, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newESTServer(t, ca, nil)
			s.edit = func(c *x509.Certificate) { c.NotBefore, c.NotAfter = tt.from, tt.to }
			c := s.config(t)
			r, err := Run(t.Context(), c)
			if tt.text != "" {
				wantError(t, err, BadReply, tt.text)
				wantNoIdentity(t, c.Dir)
			} else if err != nil || !r.NotAfter.Equal(tt.to) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// TestWaitsAreBounded: a server that says "in a hundred years" is asked tomorrow, and before the certificate ends.
func TestWaitsAreBounded(t *testing.T) {
	const century = 100 * 365 * 24 * time.Hour
	t.Run("watch, without a certificate", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeCA{t: t, ca: newTestCA(t, "good"), validity: 100 * time.Hour}
			f.fail = []error{(&Error{Kind: Pending, Text: "wait"}).wait(century), &Error{Kind: Busy, Text: "of another Enroller", RetryAfter: century}}
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Hour)
			defer cancel()
			(&Agent{Config: Config{Dir: t.TempDir(), Device: "sensor-1", Enroller: f}}).Watch(ctx)
			if len(f.at) != 3 || f.at[1].Sub(f.at[0]) < 24*time.Hour || f.at[1].Sub(f.at[0]) > 25*time.Hour || f.at[2].Sub(f.at[1]) > 25*time.Hour {
				t.Errorf("asked at %v", f.at)
			}
		})
	})
	t.Run("watch, with a certificate", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeCA{t: t, ca: newTestCA(t, "good"), validity: 24 * time.Hour}
			c := Config{Dir: t.TempDir(), Device: "sensor-1", Enroller: f}
			first := mustRun(t, c)
			for range 3 {
				f.fail = append(f.fail, (&Error{Kind: Busy, Text: "busy"}).wait(century))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Hour)
			defer cancel()
			(&Agent{Config: c}).Watch(ctx)
			if len(f.at) < 5 || !f.at[4].Before(first.NotAfter) {
				t.Errorf("certificate until %v, asked at %v", first.NotAfter, f.at)
			}
		})
	})
	t.Run("said", func(t *testing.T) {
		err := (&Error{Kind: Busy, Op: "x", Text: "busy"}).wait(century)
		if want := "x: busy (the server asks to wait 876000h0m0s; this client waits 24h0m0s at most)"; err.Error() != want {
			t.Errorf("%q", err)
		}
		if err := (&Error{Kind: Busy, Op: "x", Text: "busy"}).wait(time.Hour); err.Error() != "x: busy" || err.RetryAfter != time.Hour {
			t.Errorf("%q", err)
		}
	})
	t.Run("advice", func(t *testing.T) {
		s := newACMEServer(t, newTestCA(t, "good"))
		s.window = [2]time.Time{time.Now().Add(time.Hour), time.Now().AddDate(100, 0, 0)}
		c := s.config(t)
		r := mustRun(t, c)
		if left := r.NotAfter.Sub(r.RenewAt); left < 100*time.Hour/21 {
			t.Errorf("renewal at %v of a certificate until %v", r.RenewAt, r.NotAfter)
		}
	})
}

// TestTextOfServers: nothing that a server sends reaches the terminal as it is, however it gets into an error.
func TestTextOfServers(t *testing.T) {
	ca := newTestCA(t, "good")
	t.Run("a name in its certificate", func(t *testing.T) {
		s := newESTServer(t, ca, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"\x1b]0;owned\x07"} })
		c := s.config(t)
		c.Server = strings.Replace(c.Server, "127.0.0.1", "localhost", 1)
		_, err := Run(t.Context(), c)
		wantError(t, err, Untrusted, ".]0;owned.")
	})
	t.Run("a header", func(t *testing.T) {
		s := newESTServer(t, ca, nil)
		s.ops["cacerts"] = func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n\x1b[31m\x00"+strings.Repeat("x", 9000)+"\r\n\r\n")
			conn.Close()
		}
		c := s.config(t)
		c.Wait = time.Millisecond
		_, err := Run(t.Context(), c)
		wantError(t, err, Unreachable, "malformed MIME header")
		if len(err.Error()) > 4100 || strings.Contains(err.Error(), "\x00") {
			t.Errorf("%d octets", len(err.Error()))
		}
	})
}

// TestNothingIsUnpacked: no protocol asks for compressed bodies.
func TestNothingIsUnpacked(t *testing.T) {
	ca := newTestCA(t, "good")
	var asked []string
	for _, c := range []Config{newESTServer(t, ca, nil).config(t), newACMEServer(t, ca).config(t), newCMPServer(t, ca).config(t)} {
		proxy := spy(t, ca, func(r *http.Request) { asked = append(asked, c.Protocol+r.Header.Get("Accept-Encoding")) })
		c.Server, c.Wait = proxy.URL, time.Millisecond
		Run(t.Context(), c)
	}
	if !slices.Equal(slices.Compact(asked), []string{"", "acme", "cmp"}) {
		t.Errorf("%q", asked)
	}
}

// spy is a server of ca that shows requests and answers 503.
func spy(t *testing.T, ca *testCA, see func(*http.Request)) *estServer {
	s := newESTServer(t, ca, nil)
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		see(r)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	return s
}

// TestKeyForEverybody: a key that others can read is told of.
func TestKeyForEverybody(t *testing.T) {
	s := newESTServer(t, newTestCA(t, "good"), nil)
	c := s.config(t)
	mustRun(t, c)
	if err := os.Chmod(c.Dir+"/"+KeyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, show := range map[string]func(Config) (Result, error){"run": func(c Config) (Result, error) { return Run(t.Context(), c) }, "show": Show} {
		if r, err := show(c); err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "mode 0644") {
			t.Errorf("%s: %q, %v", name, r.Warnings, err)
		}
	}
	c.Renew = true
	if r := mustRun(t, c); len(r.Warnings) != 0 {
		t.Errorf("%q", r.Warnings)
	}
}
