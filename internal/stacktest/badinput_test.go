package stacktest

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// refused demands a refusal: the status, a short text that says what is wrong,
// and nothing changed in the ledger.
func refused(t *testing.T, h *home, before ledger, a answer, err error, status int, says string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if a.status != status || !strings.Contains(a.body, says) {
		t.Errorf("got %d %q, want %d and a text with %q", a.status, a.body, status, says)
	}
	checkText(t, a)
	unchanged(t, h, before)
}

// checkText demands what every refusal has.
func checkText(t *testing.T, a answer) {
	t.Helper()
	if len(a.body) < 10 || len(a.body) > 1100 || strings.Count(a.body, "\n") != 1 || !strings.HasSuffix(a.body, "\n") {
		t.Errorf("the body is not one short line: %q", a.body)
	}
	if got := a.header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
	if challenge := a.header.Get("WWW-Authenticate"); (challenge != "") != (a.status == http.StatusUnauthorized) {
		t.Errorf("status %d with WWW-Authenticate %q", a.status, challenge)
	}
	retry := a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable
	if got := a.header.Get("Retry-After"); (got != "") != retry {
		t.Errorf("status %d with Retry-After %q", a.status, got)
	}
}

func unchanged(t *testing.T, h *home, before ledger) {
	t.Helper()
	after := h.ledger()
	if !maps.Equal(before.used, after.used) {
		t.Errorf("uses were spent: %v before, %v after", before.used, after.used)
	}
	for serial := range after.certs {
		if _, known := before.certs[serial]; !known {
			t.Errorf("certificate %s is in the ledger", serial)
		}
	}
}

func TestBadBodies(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	lamp := h.device(h.addDevice("lamp-1"))
	key := newKey(t)
	good := newCSR(t, key, "lamp-1")
	b64 := func(der []byte) string { return base64.StdEncoding.EncodeToString(der) }
	armour := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: good}))
	badSignature := bytes.Clone(good)
	badSignature[len(badSignature)-3] ^= 1
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	noPoint := bytes.Clone(point)
	noPoint[len(noPoint)-1] ^= 1
	offCurve := bytes.Replace(good, point, noPoint, 1)
	longNames := newCSR(t, key, "lamp-1", func(r *x509.CertificateRequest) {
		for range 1500 {
			r.DNSNames = append(r.DNSNames, "a-name-that-is-forty-octets-long.example.com")
		}
	})
	manyNames := newCSR(t, key, "lamp-1", func(r *x509.CertificateRequest) {
		for range 50 {
			r.DNSNames = append(r.DNSNames, "lamp-1")
		}
	})
	type badBody struct {
		name   string
		body   string
		status int
		says   string
	}
	cases := []badBody{
		{"empty", "", 400, "empty"},
		{"white space", " \r\n\t", 400, "empty"},
		{"garbage text", "this is not a request!", 400, "base64"},
		{"garbage octets", "\x00\xff\xfe\x01garbage", 400, "base64"},
		{"garbage behind base64", b64([]byte("certainly no certificate request")), 400, "PKCS#10"},
		{"base64 cut off", b64(good)[:101], 400, "base64"},
		{"DER cut off", b64(good[:len(good)-20]), 400, "PKCS#10"},
		{"DER cut off, raw", string(good[:len(good)-20]), 400, "PKCS#10"},
		{"trailing octets", b64(append(bytes.Clone(good), 0)), 400, "PKCS#10"},
		{"trailing octets, raw", string(good) + "\n", 400, "PKCS#10"},
		{"trailing request", b64(append(bytes.Clone(good), good...)), 400, "PKCS#10"},
		{"text after the base64", b64(good) + "\nand more", 400, "base64"},
		{"two PEM blocks", armour + armour, 400, ""},
		{"another PEM block", strings.ReplaceAll(armour, "CERTIFICATE REQUEST", "CERTIFICATE"), 400, "PEM"},
		{"indefinite length", "\x30\x80" + string(good[2:]) + "\x00\x00", 400, "PKCS#10"},
		{"a certificate for a request", b64(mustRootDER(t, h)), 400, "PKCS#10"},
		{"bad signature", b64(badSignature), 400, "signature"},
		{"point off the curve", b64(offCurve), 400, "certified"},
		{"too many names", b64(manyNames), 400, "names"},
		{"request beyond 64 KiB", b64(longNames), 413, "larger"},
		{"request beyond 64 KiB, raw", string(longNames), 413, "larger"},
		{"body beyond the limit", strings.Repeat("A", 200<<10), 413, "larger"},
		{"a megabyte of spaces", strings.Repeat(" ", 1<<20), 413, "larger"},
	}
	for _, file := range []string{"rsa1024", "rsa-exponent3", "secp224r1", "secp256k1", "secp521r1", "ed448"} {
		raw, err := os.ReadFile(filepath.Join("testdata", file+".csr"))
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, badBody{"key " + file, string(raw), 400, "key"})
	}
	sha1, err := os.ReadFile("testdata/rsa-sha1.csr")
	if err != nil {
		t.Fatal(err)
	}
	cases = append(cases, badBody{"signed with SHA-1", string(sha1), 400, "SHA-256"})
	before := h.ledger()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, err := lamp.do(request{body: strings.NewReader(c.body)})
			refused(t, h, before, a, err, c.status, c.says)
		})
		t.Run(c.name+", chunked", func(t *testing.T) {
			a, err := lamp.do(request{body: io.MultiReader(strings.NewReader(c.body))}) // of unknown length
			if err != nil || a.status != c.status {
				t.Errorf("got %d %q %v, want %d", a.status, a.body, err, c.status)
			}
		})
	}
	unchanged(t, h, before)
	if !t.Failed() { // the credential is as good as new
		if a, err := lamp.enroll(good); err != nil || a.status != http.StatusOK {
			t.Errorf("after all that the right request gets %d %q %v", a.status, a.body, err)
		}
	}
}

func mustRootDER(t *testing.T, h *home) []byte {
	raw, err := os.ReadFile(h.path("root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	return block.Bytes
}

func TestForeignNames(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	lamp := h.device(h.addDevice("lamp-1", "--uses", "5"))
	other := h.device(h.addDevice("lamp-2"))
	old, oldKey := lamp.mustEnroll(t, "lamp-1")
	owner := h.owner(old, oldKey)
	_, otherKey := other.mustEnroll(t, "lamp-2")
	ou := asn1.ObjectIdentifier{2, 5, 4, 11}
	uri, _ := url.Parse("urn:dev:lamp-2")
	names := []struct {
		name   string
		id     string
		change func(*x509.CertificateRequest)
		status int
		says   string
		renew  bool // refused on renewal too, whatever the old certificate says
	}{
		{"common name", "lamp-2", nil, 403, "lamp-2", true},
		{"common name that begins so", "lamp-11", nil, 403, "lamp-11", true},
		{"two common names", "", func(r *x509.CertificateRequest) {
			r.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: "lamp-1"}, {Type: []int{2, 5, 4, 3}, Value: "lamp-2"}}}
		}, 403, "", true},
		{"DNS name", "lamp-1", func(r *x509.CertificateRequest) { r.DNSNames = []string{"lamp-2"} }, 403, "lamp-2", true},
		{"DNS name, among right ones", "lamp-1", func(r *x509.CertificateRequest) { r.DNSNames = []string{"lamp-1", "www.example.com"} }, 403, "www.example.com", true},
		{"wildcard", "lamp-1", func(r *x509.CertificateRequest) { r.DNSNames = []string{"*.lamp-1"} }, 403, "", true},
		{"URI", "lamp-1", func(r *x509.CertificateRequest) { r.URIs = []*url.URL{uri} }, 403, "lamp-2", true},
		{"IP address", "lamp-1", func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{{10, 0, 0, 1}} }, 403, "ip", true},
		{"mail address", "lamp-1", func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"lamp-1@example.com"} }, 403, "email", true},
		{"organization", "lamp-1", func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"Example"} }, 403, "subject", true},
		{"organizational unit twice", "lamp-1", func(r *x509.CertificateRequest) {
			r.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: "lamp-1"}, {Type: ou, Value: "a"}, {Type: ou, Value: "b"}}
		}, 403, "subject", true},
		{"control character", "lamp-1\n", nil, 400, "names", true},
		{"right, but not those of the old certificate", "lamp-1", func(r *x509.CertificateRequest) { r.DNSNames = []string{"lamp-1"} }, 0, "", true},
		{"no subject", "", nil, 0, "", true},
	}
	before := h.ledger()
	for _, c := range names {
		var change []func(*x509.CertificateRequest)
		if c.change != nil {
			change = append(change, c.change)
		}
		if c.status != 0 {
			t.Run(c.name, func(t *testing.T) {
				a, err := lamp.enroll(newCSR(t, newKey(t), c.id, change...))
				refused(t, h, before, a, err, c.status, c.says)
			})
			t.Run(c.name+", with its certificate", func(t *testing.T) {
				a, err := owner.enroll(newCSR(t, newKey(t), c.id, change...))
				refused(t, h, before, a, err, c.status, c.says)
			})
		}
		t.Run(c.name+", re-enrolment", func(t *testing.T) {
			a, err := owner.reenroll(newCSR(t, newKey(t), c.id, change...))
			status, says := c.status, c.says
			if status != 400 {
				status, says = 403, "re-enrolment keeps"
			}
			refused(t, h, before, a, err, status, says)
		})
	}
	t.Run("key of another device", func(t *testing.T) {
		a, err := lamp.enroll(newCSR(t, otherKey, "lamp-1"))
		refused(t, h, before, a, err, 400, "key is known under another device")
	})
	t.Run("key of another device, re-enrolment", func(t *testing.T) {
		a, err := owner.reenroll(newCSR(t, otherKey, "lamp-1"))
		refused(t, h, before, a, err, 400, "key is known under another device")
	})
	t.Run("its own key and name, re-enrolment", func(t *testing.T) {
		a, err := owner.reenroll(newCSR(t, oldKey, "LAMP-1"))
		if err != nil || a.status != 200 {
			t.Errorf("got %d %q %v", a.status, a.body, err)
		}
	})
}

func TestBadHTTP(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	lamp := h.device(h.addDevice("lamp-1", "--uses", "3"))
	csr := newCSR(t, newKey(t), "lamp-1")
	before := h.ledger()
	cases := []struct {
		name   string
		r      request
		status int
		allow  string
		says   string
	}{
		{"GET simpleenroll", request{method: "GET"}, 405, "POST", "POST"},
		{"HEAD simpleenroll", request{method: "HEAD"}, 405, "POST", ""},
		{"OPTIONS simpleenroll", request{method: "OPTIONS"}, 405, "POST", "POST"},
		{"PUT simpleenroll", request{method: "PUT", body: encoded(csr)}, 405, "POST", "POST"},
		{"DELETE simplereenroll", request{method: "DELETE", path: reenrollPath}, 405, "POST", "POST"},
		{"unknown method", request{method: "ENROLL", body: encoded(csr)}, 405, "POST", "POST"},
		{"POST cacerts", request{path: "/.well-known/est/cacerts", body: encoded(csr)}, 405, "GET, HEAD", "GET"},
		{"POST csrattrs", request{path: "/.well-known/est/device/csrattrs"}, 405, "GET, HEAD", "GET"},
		{"unknown label", request{path: "/.well-known/est/nosuch/simpleenroll", body: encoded(csr)}, 404, "", "nosuch"},
		{"unknown label, cacerts", request{method: "GET", path: "/.well-known/est/nosuch/cacerts"}, 404, "", "nosuch"},
		{"label that would be a path", request{path: "/.well-known/est/..%2f..%2fdevice/simpleenroll", body: encoded(csr)}, 404, "", ""},
		{"empty label", request{path: "/.well-known/est//simpleenroll", body: encoded(csr)}, 404, "", ""},
		{"unknown operation", request{path: "/.well-known/est/enroll", body: encoded(csr)}, 404, "", "simpleenroll"},
		{"a key made here, which the profile forbids", request{path: "/.well-known/est/serverkeygen", body: encoded(csr)}, 403, "", "simpleenroll"},
		{"fullcmc", request{path: "/.well-known/est/fullcmc", body: encoded(csr)}, 415, "", "application/pkcs7-mime"},
		{"label that the level may not have", request{path: "/.well-known/est/remediation/simpleenroll", body: encoded(csr)}, 403, "", "remediation"},
		{"no content type", request{contentType: "none", body: encoded(csr)}, 415, "", "application/pkcs10"},
		{"form", request{contentType: "application/x-www-form-urlencoded", body: encoded(csr)}, 415, "", "application/pkcs10"},
		{"text", request{contentType: "text/plain", body: encoded(csr)}, 415, "", "application/pkcs10"},
		{"JSON", request{contentType: "application/json", body: strings.NewReader("{}")}, 415, "", "application/pkcs10"},
		{"several content types", request{contentType: "application/pkcs10, text/plain", body: encoded(csr)}, 415, "", "application/pkcs10"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, err := lamp.do(c.r)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.header.Get("Allow"); got != c.allow {
				t.Errorf("Allow: %q, want %q", got, c.allow)
			}
			if c.r.method == "HEAD" {
				if a.status != c.status || a.body != "" {
					t.Errorf("got %d %q", a.status, a.body)
				}
				return
			}
			refused(t, h, before, a, err, c.status, c.says)
		})
	}
	t.Run("HEAD cacerts", func(t *testing.T) {
		a, err := lamp.do(request{method: "HEAD", path: "/.well-known/est/cacerts"})
		if err != nil || a.status != 200 || a.body != "" || a.header.Get("Content-Length") == "" {
			t.Errorf("got %d %q %v", a.status, a.body, err)
		}
	})
	t.Run("EST without TLS", func(t *testing.T) {
		resp, err := http.Post("http://"+h.http+enrollPath, pkcs10, encoded(csr))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("got %d", resp.StatusCode)
		}
	})
	t.Run("chunked", func(t *testing.T) {
		a, err := lamp.do(request{body: io.MultiReader(encoded(csr))})
		if err != nil || a.status != 200 {
			t.Errorf("got %d %q %v", a.status, a.body, err)
		}
	})
	for _, contentType := range []string{"Application/PKCS10", "application/pkcs10; charset=utf-8"} {
		t.Run("content type "+contentType, func(t *testing.T) {
			a, err := lamp.do(request{contentType: contentType, body: encoded(csr)})
			if err != nil || a.status != 200 {
				t.Errorf("got %d %q %v", a.status, a.body, err)
			}
		})
	}
	after := h.ledger()
	if n := after.by(lamp.grant.Reference); n != 1 || after.used[lamp.grant.Reference] != 1 {
		t.Errorf("the same request, sent three times, brought %d certificates for %d uses", n, after.used[lamp.grant.Reference])
	}
}
