package stacktest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const noSecret = "unknown reference or wrong secret"

func TestBadCredentials(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	good, csr := h.addDevice("lamp-1"), newCSR(t, newKey(t), "lamp-1")
	revoked := h.addDevice("lamp-3")
	h.run("credential", "revoke", revoked.Reference, "--home", h.dir)
	spent := h.addDevice("lamp-4")
	h.device(spent).mustEnroll(t, "lamp-4")
	suspended := h.addDevice("lamp-5", "--uses", "3")
	suspendedCert, suspendedKey := h.device(suspended).mustEnroll(t, "lamp-5")
	h.run("device", "suspend", "lamp-5", "--home", h.dir)
	retired := h.addDevice("lamp-6", "--uses", "3")
	retiredCert, retiredKey := h.device(retired).mustEnroll(t, "lamp-6")
	h.run("device", "retire", "lamp-6", "--home", h.dir)
	group := h.addGroup("bulb-*", "5")

	with := func(reference, secret string) *dev { return h.device(grant{Reference: reference, Secret: secret}) }
	basic := func(value string) request {
		return request{body: encoded(csr), header: http.Header{"Authorization": {value}}}
	}
	cases := []struct {
		name   string
		d      *dev
		id     string
		r      *request
		status int
		says   string
	}{
		{"nothing shown", with("", ""), "lamp-1", nil, 401, "credential"},
		{"wrong password", with(good.Reference, "wrong"), "lamp-1", nil, 401, noSecret},
		{"no password", with(good.Reference, ""), "lamp-1", nil, 401, noSecret},
		{"password cut off", with(good.Reference, good.Secret[:42]), "lamp-1", nil, 401, noSecret},
		{"password and more", with(good.Reference, good.Secret+"A"), "lamp-1", nil, 401, noSecret},
		{"password of another device", with(good.Reference, spent.Secret), "lamp-1", nil, 401, noSecret},
		{"unknown reference", with("nosuchreference0", good.Secret), "lamp-1", nil, 401, noSecret},
		{"very long reference", with(strings.Repeat("r", 5000), good.Secret), "lamp-1", nil, 401, noSecret},
		{"reference with quotes", with(`' OR 1=1 --`, "x"), "lamp-1", nil, 401, noSecret},
		{"octets for a reference", with("\xff\xfe\x01", "\x02"), "lamp-1", nil, 401, noSecret},
		{"another scheme", with("", ""), "lamp-1", new(basic("Bearer " + good.Secret)), 401, "credential"},
		{"Basic that is not base64", with("", ""), "lamp-1", new(basic("Basic !!!")), 401, "credential"},
		{"wrong password and garbage", with(good.Reference, "wrong"), "", &request{body: strings.NewReader("garbage")}, 401, noSecret},
		{"for another device", with(good.Reference, good.Secret), "lamp-7", nil, 403, "lamp-7"},
		{"group's, for a device outside", with(group.Reference, group.Secret), "lamp-7", nil, 403, "lamp-7"},
		{"group's, for a device of another credential", with(group.Reference, group.Secret), "lamp-1", nil, 403, "lamp-1"},
		{"group's, for no device ID", with(group.Reference, group.Secret), "bulb 1", nil, 403, ""},
		{"revoked", h.device(revoked), "lamp-3", nil, 401, "revoked"},
		{"spent", h.device(spent), "lamp-4", nil, 401, "no uses left"},
		{"suspended device", h.device(suspended), "lamp-5", nil, 403, "suspended"},
		{"suspended device, with its certificate", h.owner(suspendedCert, suspendedKey), "lamp-5", nil, 403, "suspended"},
		{"retired device", h.device(retired), "lamp-6", nil, 401, "revoked"},
		{"retired device, with its certificate", h.owner(retiredCert, retiredKey), "lamp-6", nil, 401, "revoked"},
	}
	before := h.ledger()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := c.r
			if r == nil {
				r = &request{body: encoded(newCSR(t, newKey(t), c.id))}
			}
			a, err := c.d.do(*r)
			refused(t, h, before, a, err, c.status, c.says)
			if strings.Contains(a.body, good.Secret) {
				t.Error("the answer shows the secret")
			}
		})
	}
	if strings.Contains(h.log.String(), good.Secret) || strings.Contains(h.log.String(), spent.Secret) {
		t.Error("the log shows a secret")
	}
	t.Run("resumed device", func(t *testing.T) {
		h.run("device", "resume", "lamp-5", "--home", h.dir)
		h.device(suspended).mustEnroll(t, "lamp-5")
	})
	t.Run("retired device gets no new credential", func(t *testing.T) {
		if _, errs, err := h.try(nil, "credential", "add", "--device", "lamp-6", "--home", h.dir); err == nil || !strings.Contains(errs, "retired") {
			t.Errorf("%v %s", err, errs)
		}
	})
}

// TestFloods sends wrong secrets until the server has had enough. Those who
// know theirs must not notice.
func TestFloods(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	good := h.addDevice("lamp-1")
	before := h.ledger()
	flood := func(t *testing.T, reference func(i int) string, atMost int) {
		for i := range atMost + 5 {
			a, err := h.device(grant{Reference: reference(i), Secret: "wrong"}).enroll(newCSR(t, newKey(t), "lamp-1"))
			if err != nil {
				t.Fatal(err)
			}
			checkText(t, a)
			if a.status == http.StatusTooManyRequests {
				if wait, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || wait < 1 || wait > 60 {
					t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
				}
				return
			}
			if a.status != http.StatusUnauthorized {
				t.Fatalf("wrong secret %d got %d %q", i, a.status, a.body)
			}
		}
		t.Errorf("%d wrong secrets, and no end", atMost+5)
	}
	t.Run("one reference", func(t *testing.T) { flood(t, func(int) string { return good.Reference }, 10) })
	t.Run("many references", func(t *testing.T) { flood(t, func(i int) string { return "guess" + strconv.Itoa(i) }, 30) })
	unchanged(t, h, before)
	t.Run("the right secret", func(t *testing.T) {
		h.device(good).mustEnroll(t, "lamp-1")
	})
	t.Run("a certificate", func(t *testing.T) {
		cert, key := h.device(h.addDevice("lamp-2")).mustEnroll(t, "lamp-2")
		if a, err := h.owner(cert, key).enroll(newCSR(t, key, "lamp-2")); err != nil || a.status != 200 {
			t.Errorf("got %d %q %v", a.status, a.body, err)
		}
	})
}

func TestBadClientCertificates(t *testing.T) {
	// Made first: they expire while other tests run. A minute is the shortest
	// validity that a policy may give.
	h := initHome(t, shortDir(t))
	source, err := os.ReadFile(h.path("policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	short := replace(t, string(source), "    validity: 24h\n    renew_at: 0.5\n    status_unknown: allow", "    validity: 1m\n    renew_at: 0.5\n    status_unknown: allow")
	short = replace(t, short, "backdate: 5m ", "backdate: 10s ")
	short = replace(t, short, "renew_after_expiry: 2160h", "renew_after_expiry: 0s")
	short = replace(t, short, "validity_factor: 0.25", "validity_factor: 1")
	write(t, h.path("short.yaml"), short)
	h.start()
	h.run("policy", "apply", h.path("short.yaml"), "--home", h.dir)
	lamp := h.device(h.addDevice("lamp-1", "--uses", "9"))
	late := h.addDevice("lamp-2", "--ttl", "1m")
	lateEnd := time.Now().Add(time.Minute)
	warehouse, warehouseKey := lamp.mustEnroll(t, "lamp-1")
	lapsedKey := newKey(t)
	a, err := lamp.do(request{path: "/.well-known/est/lamp/simpleenroll", body: encoded(newCSR(t, lapsedKey, "lamp-1"))})
	if err != nil || a.status != 200 {
		t.Fatalf("got %d %q %v", a.status, a.body, err)
	}
	lapsed := a.cert
	if life := time.Until(lapsed.NotAfter); life > time.Minute {
		t.Fatalf("valid for another %s", life)
	}
	t.Parallel()

	revoked, revokedKey := lamp.mustEnroll(t, "lamp-1")
	h.run("cert", "revoke", serialOf(revoked), "--reason", "keyCompromise", "--home", h.dir)
	other := newHome(t)
	foreign, foreignKey := other.device(other.addDevice("lamp-1")).mustEnroll(t, "lamp-1")
	mimicKey := newKey(t)
	mimic := selfSigned(t, mimicKey, "lamp-1", warehouse.SerialNumber)
	strange := selfSigned(t, mimicKey, "lamp-1", big.NewInt(1))
	before := h.ledger()
	cases := []struct {
		name string
		cert *x509.Certificate
		key  *ecdsa.PrivateKey
		says string
	}{
		{"revoked", revoked, revokedKey, "revoked"},
		{"of another CA", foreign, foreignKey, "not issued by this CA"},
		{"self-signed", strange, mimicKey, "not issued by this CA"},
		{"self-signed, with a serial of ours", mimic, mimicKey, "not issued by this CA"},
		{"expired, and its profile forgives nothing", lapsed, lapsedKey, "expired"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if strings.HasPrefix(c.name, "expired") {
				time.Sleep(time.Until(c.cert.NotAfter.Add(1200 * time.Millisecond)))
			}
			owner := h.owner(c.cert, c.key)
			a, err := owner.reenroll(newCSR(t, newKey(t), "lamp-1"))
			refused(t, h, before, a, err, 401, c.says)
			a, err = owner.enroll(newCSR(t, c.key, "lamp-1"))
			refused(t, h, before, a, err, 401, c.says)
			// A CA's certificates are no secret; whoever offers credentials, though, must have good ones.
			a, err = owner.do(request{method: "GET", path: "/.well-known/est/cacerts"})
			if err != nil || a.status != 200 {
				t.Errorf("cacerts: %d %q %v", a.status, a.body, err)
			}
		})
	}
	t.Run("expired credential", func(t *testing.T) {
		time.Sleep(time.Until(lateEnd))
		a, err := h.device(late).enroll(newCSR(t, newKey(t), "lamp-2"))
		refused(t, h, before, a, err, 401, "expired")
	})
	t.Run("a lapsed certificate and a wrong secret", func(t *testing.T) {
		owner := h.owner(lapsed, lapsedKey)
		owner.grant = grant{Reference: lamp.grant.Reference, Secret: "wrong"}
		a, err := owner.reenroll(newCSR(t, newKey(t), "lamp-1"))
		refused(t, h, before, a, err, 401, noSecret)
	})
	t.Run("lapsed, from a warehouse, with another key", func(t *testing.T) {
		a, err := h.owner(warehouse, warehouseKey).reenroll(newCSR(t, newKey(t), "lamp-1"))
		refused(t, h, before, a, err, 401, "same key")
	})
	t.Run("lapsed, from a warehouse, with the same key", func(t *testing.T) {
		a, err := h.owner(warehouse, warehouseKey).reenroll(newCSR(t, warehouseKey, "lamp-1"))
		if err != nil || a.status != 200 {
			t.Fatalf("got %d %q %v", a.status, a.body, err)
		}
		h.run("device", "suspend", "lamp-1", "--home", h.dir)
	})
	t.Run("lapsed, from a warehouse, of a suspended device", func(t *testing.T) {
		before := h.ledger()
		a, err := h.owner(warehouse, warehouseKey).reenroll(newCSR(t, warehouseKey, "lamp-1"))
		refused(t, h, before, a, err, 403, "suspended")
		h.run("device", "resume", "lamp-1", "--home", h.dir)
	})
	t.Run("a lapsed certificate and the right secret", func(t *testing.T) {
		owner := h.owner(lapsed, lapsedKey)
		owner.grant = lamp.grant
		if a, err := owner.reenroll(newCSR(t, newKey(t), "lamp-1")); err != nil || a.status != 200 {
			t.Errorf("got %d %q %v", a.status, a.body, err)
		}
	})
}

// selfSigned makes a client certificate that nobody issued.
func selfSigned(t *testing.T, key *ecdsa.PrivateKey, id string, serial *big.Int) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: id},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
