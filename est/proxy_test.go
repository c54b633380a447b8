package est_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/est"
	"github.com/deviceca/deviceca/internal/dertest"
)

func clientCert(ders ...[]byte) map[string]string {
	h, chain := map[string]string{}, []string{}
	for i, der := range ders {
		item := ":" + base64.StdEncoding.EncodeToString(der) + ":"
		if i == 0 {
			h[est.ClientCertHeader] = item
			continue
		}
		chain = append(chain, item)
	}
	if len(chain) > 0 {
		h[est.ClientCertChainHeader] = strings.Join(chain, ", ")
	}
	return h
}

func behind(cert []byte, networks ...string) func(*est.Options) {
	return func(o *est.Options) {
		o.Proxies.Cert = cert
		for _, n := range networks {
			o.Proxies.Networks = append(o.Proxies.Networks, netip.MustParsePrefix(n))
		}
	}
}

const (
	here      = "127.0.0.0/8"
	elsewhere = "192.0.2.0/24"
)

func TestProxy(t *testing.T) {
	for _, c := range []struct {
		name     string
		networks []string
		pinned   bool   // the proxy's own certificate
		as       string // TLS client: "", "proxy", "lamp" or "other"
		header   string // Client-Cert: "", "lamp", "proxy" or "bad"
		basic    bool
		status   int
		outcome  string
	}{
		{name: "no proxies, forged", header: "lamp", status: 403, outcome: "forgedProxy"},
		{name: "no proxies, forged beside a good certificate", as: "lamp", header: "lamp", status: 403, outcome: "forgedProxy"},
		{name: "no proxies, forged beside a good secret", header: "bad", basic: true, status: 403, outcome: "forgedProxy"},
		{name: "forged from elsewhere", networks: []string{elsewhere}, header: "lamp", status: 403, outcome: "forgedProxy"},
		{name: "forged from elsewhere, unreadable", networks: []string{elsewhere}, header: "bad", status: 403, outcome: "forgedProxy"},
		{name: "direct, beside proxies", networks: []string{elsewhere}, as: "lamp", status: 200, outcome: "issue"},
		{name: "direct, nothing shown", networks: []string{elsewhere}, status: 401, outcome: "unauthenticated"},

		{name: "proxied", networks: []string{elsewhere, here}, header: "lamp", status: 200, outcome: "issue"},
		{name: "proxied, by a proxy with a certificate", networks: []string{here}, as: "proxy", header: "lamp", status: 200, outcome: "issue"},
		{name: "proxied, no certificate", networks: []string{here}, status: 401, outcome: "unauthenticated"},
		{name: "the proxy's certificate is not the device's", networks: []string{here}, as: "lamp", status: 401, outcome: "unauthenticated"},
		{name: "proxied, a secret", networks: []string{here}, as: "lamp", basic: true, status: 200, outcome: "issue"},
		{name: "proxied, foreign certificate", networks: []string{here}, header: "proxy", status: 401, outcome: "unauthenticated"},
		{name: "proxied, unreadable", networks: []string{here}, header: "bad", status: 400, outcome: "proxied"},
		{name: "proxied, unreadable beside a secret", networks: []string{here}, header: "bad", basic: true, status: 400, outcome: "proxied"},

		{name: "pinned", networks: []string{here}, pinned: true, as: "proxy", header: "lamp", status: 200, outcome: "issue"},
		{name: "pinned, nothing shown", networks: []string{here}, pinned: true, header: "lamp", status: 403, outcome: "forgedProxy"},
		{name: "pinned, another shown", networks: []string{here}, pinned: true, as: "other", header: "lamp", status: 403, outcome: "forgedProxy"},
		{name: "pinned, from elsewhere", networks: []string{elsewhere}, pinned: true, as: "proxy", header: "lamp", status: 403, outcome: "forgedProxy"},
		{name: "pinned, a device on the proxy's host", networks: []string{here}, pinned: true, as: "lamp", status: 200, outcome: "issue"},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxy, other := selfSigned(t, "proxy"), selfSigned(t, "other")
			var pin []byte
			if c.pinned {
				pin = proxy.cert.DER
			}
			e := newEnv(t, behind(pin, c.networks...))
			lamp := e.newIdentity(t, "lamp-1", time.Now().Add(time.Hour))
			ask := call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1"))}
			ask.as = map[string]*identity{"proxy": &proxy, "other": &other, "lamp": &lamp}[c.as]
			ask.header = map[string]map[string]string{"lamp": clientCert(lamp.cert.DER), "proxy": clientCert(proxy.cert.DER), "bad": {est.ClientCertHeader: "bad"}}[c.header]
			if c.basic {
				ask.user, ask.pass = "lamp-ref", lampSecret
			}
			r := e.do(t, ask)
			if r.status != c.status || e.lastObserved() != "simpleenroll "+c.outcome {
				t.Errorf("status %d, observed %q: %s", r.status, e.lastObserved(), r.body)
			}
			if c.status != http.StatusOK && strings.Contains(r.body, "lamp-1") {
				t.Errorf("the refusal says too much: %s", r.body)
			}
		})
	}
}

// A forged field is refused where nobody is asked who they are, too, and a
// field without a certificate before it.
func TestProxyOtherOperations(t *testing.T) {
	e := newEnv(t, behind(nil, here))
	lamp := e.newIdentity(t, "lamp-1", time.Now().Add(time.Hour))
	e.do(t, call{path: "csrattrs", header: clientCert(lamp.cert.DER)}).wantStatus(t, 200)
	e.do(t, call{path: "csrattrs", header: clientCert(selfSigned(t, "x").cert.DER)}).wantStatus(t, 200) // as to anyone
	e.do(t, call{path: "csrattrs"}).wantStatus(t, 200)
	// Extras that crypto/x509 refuses are in nobody's way.
	for _, o := range dertest.Oddities {
		if o.RSA {
			continue
		}
		key := newKey(t)
		extra := dertest.Device(&x509.Certificate{RawSubject: dertest.DN()}, "lamp-1", key.Public())
		o.Edit(extra)
		e.do(t, call{path: "csrattrs", header: clientCert(lamp.cert.DER, extra.Sign(t, key))}).wantStatus(t, 200)
	}
	e.do(t, call{path: "simplereenroll", body: base64Body(newCSR(t, lamp.key, "lamp-1")), header: clientCert(lamp.cert.DER)}).wantStatus(t, 200)
	if !e.last(t).Renew {
		t.Error("re-enrolment through a proxy was not one")
	}
	e.do(t, call{path: "cacerts", header: map[string]string{est.ClientCertChainHeader: "::"}}).wantStatus(t, 400)

	e = newEnv(t)
	for _, path := range []string{"cacerts", "csrattrs"} {
		for _, field := range []string{est.ClientCertHeader, est.ClientCertChainHeader} {
			e.do(t, call{path: path, header: map[string]string{field: ""}}).wantStatus(t, 403)
		}
	}
}

func (r result) wantStatus(t testing.TB, status int) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d: %s", r.status, status, r.body)
	}
}

// selfSigned is somebody with a certificate of their own making.
func selfSigned(t testing.TB, name string) identity {
	t.Helper()
	key := newKey(t)
	c := &x509.Certificate{SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return identity{&ca.Certificate{DER: der}, key}
}

// TestIDevIDOverHTTP enrols a device by its maker's certificate, through a
// proxy, on the real core.
func TestIDevIDOverHTTP(t *testing.T) {
	s := newService(t, behind(nil, here))
	root, rootKey := makerCA(t, "Root", nil, nil)
	factory, factoryKey := makerCA(t, "Factory", root, rootKey)
	if _, err := s.core.AddManufacturer(t.Context(), ca.Manufacturer{Name: "acme", Level: "software", Anchors: [][]byte{root.Raw}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.core.ImportDevices(t.Context(), []device.Device{{ID: "A3", Level: "software", State: device.Manufactured}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	idevid := func(serial string) []byte {
		c := &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{SerialNumber: serial}, KeyUsage: x509.KeyUsageDigitalSignature,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
		der, err := x509.CreateCertificate(rand.Reader, c, factory, newKey(t).Public(), factoryKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	enrol := func(path, id string, chain ...[]byte) result {
		return s.do(t, call{path: path, body: base64Body(newCSR(t, newKey(t), id)), header: clientCert(chain...)})
	}
	a1 := idevid("A1")
	for _, path := range []string{"simpleenroll", "simplereenroll", "simpleenroll"} {
		if got := enrol(path, "A1", a1, factory.Raw).certs(t)[0].Subject.CommonName; got != "A1" {
			t.Errorf("%s gave a certificate for %q", path, got)
		}
	}
	enrol("simpleenroll", "A1", a1).wantRefusal(t, 401, "not issued by this CA, nor by a manufacturer")
	enrol("simpleenroll", "A2", a1, factory.Raw).wantRefusal(t, 403, "subject")
	enrol("simpleenroll", "A3", idevid("A3"), factory.Raw).wantRefusal(t, 403, "not yet claimed")
	if err := s.core.WithdrawManufacturer(t.Context(), "acme", "", "admin:test"); err != nil {
		t.Fatal(err)
	}
	enrol("simpleenroll", "A1", a1, factory.Raw).wantRefusal(t, 401, "nor by a manufacturer")
}

// TestRAOverHTTP lets a registration authority enrol devices over TLS, and
// refuses what is beyond its names and levels.
func TestRAOverHTTP(t *testing.T) {
	s := newService(t)
	key := newKey(t)
	c := &x509.Certificate{SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: "line-1"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 28}}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ra := identity{&ca.Certificate{DER: der}, key}
	enrol := func(path, id string) result {
		return s.do(t, call{path: path, as: &ra, body: base64Body(newCSR(t, newKey(t), id))})
	}
	enrol("simpleenroll", "lamp-1").wantRefusal(t, 401, "not issued by this CA")
	if _, err := s.core.AddRA(t.Context(), ca.RA{Name: "line-1", Cert: der, Names: []string{"lamp-*"}, Levels: []string{"software"}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.core.ImportDevices(t.Context(), []device.Device{{ID: "lamp-9", Level: "hsm"}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"simpleenroll", "simplereenroll"} {
		if got := enrol(path, "lamp-1").certs(t)[0].Subject.CommonName; got != "lamp-1" {
			t.Errorf("%s gave a certificate for %q", path, got)
		}
	}
	s.do(t, call{path: "csrattrs", as: &ra}).wantStatus(t, 200)
	enrol("simpleenroll", "gw-1").wantRefusal(t, 403, "registration authority line-1 may not act for device gw-1")
	enrol("simpleenroll", "lamp-9").wantRefusal(t, 403, "may not act for devices of level hsm")
	sessions := tls.NewLRUClientSessionCache(1)
	for _, resumed := range []bool{false, true} {
		r := s.do(t, call{path: "simpleenroll", as: &ra, body: base64Body(newCSR(t, newKey(t), "lamp-2")), sessions: sessions})
		if resumed {
			r.wantRefusal(t, 401, "full TLS handshake")
		} else {
			r.certs(t)
		}
	}
	if err := s.core.RemoveRA(t.Context(), "line-1", "admin:test"); err != nil {
		t.Fatal(err)
	}
	enrol("simpleenroll", "lamp-1").wantRefusal(t, 401, "not issued by this CA")
}

func makerCA(t testing.TB, name string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}
