package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustRun(t *testing.T, c Config) Result {
	t.Helper()
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatalf("%v (hint: %s)", err, HintOf(err))
	}
	return r
}

func load(t *testing.T, c Config) *Identity {
	t.Helper()
	id, err := (&Store{Dir: c.Dir, Signer: c.Signer}).Load()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestLife is the life of a device: enrolled, left alone, renewed, lapsed and renewed.
func TestLife(t *testing.T) {
	ca := newTestCA(t, "good")
	s := newESTServer(t, ca, nil)
	c := s.config(t)
	c.AltNames = AltNames{DNS: []string{"sensor-1.example"}, IP: []net.IP{net.IPv4(192, 0, 2, 7)}, URI: []*url.URL{{Scheme: "urn", Opaque: "dev:1"}}}

	r := mustRun(t, c)
	first := load(t, c)
	if r.Action != Enrolled || r.Protocol != "est" || r.Device != "sensor-1" || r.Serial != first.Serial() || r.Outcome != "issue" || len(r.Warnings) != 0 {
		t.Errorf("%+v", r)
	}
	if got := s.last("simpleenroll"); got.user != testUser || got.client != nil {
		t.Errorf("%+v", got)
	}
	if got := s.last("cacerts"); got.secret != "" {
		t.Error("cacerts was told the secret")
	}
	if first.Certificate.DNSNames[0] != "sensor-1.example" || !first.Certificate.IPAddresses[0].Equal(net.IPv4(192, 0, 2, 7)) || first.Certificate.URIs[0].String() != "urn:dev:1" {
		t.Errorf("names %v %v %v", first.Certificate.DNSNames, first.Certificate.IPAddresses, first.Certificate.URIs)
	}
	if len(first.Chain) != 1 || !first.Chain[0].Equal(ca.issuing) {
		t.Error("the chain was not completed from cacerts")
	}
	if roots, err := ReadCertificates(r.Files.Roots); err != nil || len(roots) != 1 || !roots[0].Equal(ca.root) {
		t.Errorf("roots: %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, requestFile)); err == nil {
		t.Error("the request is still there")
	}

	// From here on neither credential nor trust is given: the directory has them.
	c.Credential, c.Trust, c.AltNames = nil, Trust{}, AltNames{}
	asked := len(s.requests)
	if r := mustRun(t, c); r.Action != Current || len(s.requests) != asked || r.Serial != first.Serial() {
		t.Errorf("%+v after %d requests", r, len(s.requests)-asked)
	}

	c.Renew = true
	if r := mustRun(t, c); r.Action != Renewed || r.Serial == first.Serial() {
		t.Errorf("%+v", r)
	}
	c.Renew = false
	second := load(t, c)
	got := s.last("simplereenroll")
	csr, err := x509.ParseCertificateRequest(got.csr)
	if err != nil || !got.client.Equal(first.Certificate) || string(csr.RawSubject) != string(first.Certificate.RawSubject) || string(csr.Extensions[0].Value) != string(NamesOf(first.Certificate).SAN) {
		t.Errorf("re-enrolment does not repeat the certificate: %v", err)
	}
	if samePublic(first.Key.Public(), second.Key.Public()) || KeyTypeOf(second.Key.Public()) != ECDSAP256 {
		t.Error("the key was not changed, or its kind was")
	}

	c.KeepKey, c.Renew = true, true
	mustRun(t, c)
	if !samePublic(load(t, c).Key.Public(), second.Key.Public()) {
		t.Error("the key was to be kept")
	}
	c.KeepKey, c.Renew = false, false

	// Half of the validity later it is due by itself.
	c.Now = func() time.Time { return load(t, c).RenewAt(0).Add(time.Second) }
	if r := mustRun(t, c); r.Action != Renewed {
		t.Errorf("%+v", r)
	}
	c.Device = "sensor-2"
	_, err = Run(t.Context(), c)
	wantError(t, err, Usage, "sensor-2")
}

func TestLapsed(t *testing.T) {
	ca := newTestCA(t, "good")
	lapsed := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-9*time.Hour), time.Now().Add(-8*time.Hour)
	}
	idevid := ca.identity(t, "manufacturer 1", nil)
	for _, tt := range []struct {
		name       string
		reenroll   int // status, 0 works
		credential bool
		idevid     bool
		enroll     int
		want       string // operations asked for
		kind       Kind
	}{
		{name: "renews itself", want: "simplereenroll"},
		{name: "refused, nothing else", reenroll: 403, want: "simplereenroll", kind: Refused},
		{name: "refused, then the credential", reenroll: 401, credential: true, want: "simplereenroll simpleenroll"},
		{name: "refused, then the IDevID", reenroll: 403, idevid: true, credential: true, want: "simplereenroll simpleenroll"},
		{name: "all refused", reenroll: 403, idevid: true, credential: true, enroll: 403, want: "simplereenroll simpleenroll simpleenroll", kind: Refused},
		{name: "busy is no refusal", reenroll: 503, credential: true, want: strings.Repeat("simplereenroll ", maxAttempts-1) + "simplereenroll", kind: Busy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newESTServer(t, ca, nil)
			if tt.reenroll != 0 {
				s.ops["simplereenroll"] = status(tt.reenroll, "no", "")(s)
			}
			if tt.enroll != 0 {
				s.ops["simpleenroll"] = status(tt.enroll, "no", "")(s)
			}
			c := s.config(t)
			c.Wait = time.Hour
			c.Enroller = newFastEST(t, c)
			if !tt.credential {
				c.Credential = nil
			}
			if tt.idevid {
				c.IDevID = idevid.TLS()
			}
			old := ca.identity(t, "sensor-1", func(c *x509.Certificate) { lapsed(c); c.DNSNames = []string{"a.example"} })
			save(t, &Store{Dir: c.Dir}, old)
			r, err := Run(t.Context(), c)
			var ops []string
			for _, q := range s.requests {
				if strings.HasPrefix(q.op, "simple") {
					ops = append(ops, q.op)
				}
			}
			if got := strings.Join(ops, " "); got != tt.want {
				t.Errorf("asked for %s, want %s", got, tt.want)
			}
			if tt.kind != 0 {
				wantError(t, err, tt.kind, "no")
				if !load(t, c).Certificate.Equal(old.Certificate) {
					t.Error("the old certificate is gone")
				}
				return
			}
			if err != nil || r.Action != Renewed || load(t, c).Certificate.Equal(old.Certificate) {
				t.Fatalf("%+v, %v", r, err)
			}
			if got := load(t, c).Certificate; !slices.Equal(got.DNSNames, old.Certificate.DNSNames) {
				t.Errorf("the names changed to %v", got.DNSNames)
			}
			if tt.reenroll == 0 && !samePublic(load(t, c).Key.Public(), old.Key.Public()) {
				t.Error("a lapsed certificate renews with its own key")
			}
			if last := s.requests[len(s.requests)-1]; tt.idevid && (last.client == nil || !last.client.Equal(idevid.Certificate) || last.secret != "") {
				t.Error("the IDevID was not used alone")
			}
		})
	}
}

// TestLostReply: the answer is lost after the CA issued; the next run asks with the same key and the same octets.
func TestLostReply(t *testing.T) {
	ca := newTestCA(t, "good")
	s := newESTServer(t, ca, nil)
	c := s.config(t)
	c.Wait = time.Millisecond // no second try within a run
	lose := func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		conn.Close()
	}
	s.ops["simpleenroll"] = lose
	_, err := Run(t.Context(), c)
	wantError(t, err, Unreachable, "")
	before := s.last("simpleenroll").csr
	_, err = Run(t.Context(), c)
	wantError(t, err, Unreachable, "")
	if string(s.last("simpleenroll").csr) != string(before) {
		t.Error("the second run made another request")
	}
	other := c
	other.Device = "sensor-2"
	if _, err = Run(t.Context(), other); err == nil || string(s.last("simpleenroll").csr) == string(before) {
		t.Error("another device got the same request")
	}
	delete(s.ops, "simpleenroll")
	if r := mustRun(t, c); r.Action != Enrolled {
		t.Errorf("%+v", r)
	}
	// A request that is itself at fault is not repeated.
	c.Renew = true
	s.ops["simplereenroll"] = status(400, "key known elsewhere", "")(s)
	for range 2 {
		_, err = Run(t.Context(), c)
		wantError(t, err, BadRequest, "elsewhere")
	}
	a, b := s.requests[len(s.requests)-3], s.last("simplereenroll")
	if a.op != b.op || string(a.csr) == string(b.csr) {
		t.Errorf("a refused request was repeated (%s, %s)", a.op, b.op)
	}
}

func TestWaiting(t *testing.T) {
	ca := newTestCA(t, "good")
	for _, tt := range []struct {
		name     string
		statuses []int // before 200
		after    string
		wait     time.Duration
		waits    [][2]time.Duration // bounds of each
		kind     Kind
	}{
		{name: "202 then 200", statuses: []int{202, 202}, after: "60", wait: time.Hour, waits: [][2]time.Duration{{60e9, 75e9}, {60e9, 75e9}}},
		{name: "202 for ever", statuses: slices.Repeat([]int{202}, 100), after: "600", wait: 40 * time.Minute, waits: slices.Repeat([][2]time.Duration{{600e9, 750e9}}, 3), kind: Pending},
		{name: "202 without Retry-After", statuses: []int{202}, wait: time.Hour, waits: [][2]time.Duration{{60e9, 75e9}}},
		{name: "503 with Retry-After", statuses: []int{503}, after: "7", wait: time.Hour, waits: [][2]time.Duration{{7e9, 8.75e9}}},
		{name: "503 with a date", statuses: []int{503}, after: "date", wait: time.Hour, waits: [][2]time.Duration{{28e9, 38e9}}},
		{name: "429 backs off", statuses: []int{429, 429, 429}, wait: time.Hour, waits: [][2]time.Duration{{.5e9, 1e9}, {1e9, 2e9}, {2e9, 4e9}}},
		{name: "503 for ever", statuses: slices.Repeat([]int{503}, 100), after: "1", wait: time.Hour, waits: slices.Repeat([][2]time.Duration{{1e9, 1.25e9}}, maxAttempts-1), kind: Busy},
		{name: "a Retry-After beyond our time", statuses: []int{503}, after: "3000", wait: time.Minute, kind: Busy},
		{name: "a Retry-After of years", statuses: []int{503}, after: "99999999999", wait: 48 * time.Hour, waits: [][2]time.Duration{{24 * 3600e9, 25 * 3600e9}}},
		{name: "a Retry-After of rubbish", statuses: []int{503}, after: "-5; soon", wait: time.Hour, waits: [][2]time.Duration{{.5e9, 1e9}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newESTServer(t, ca, nil)
			c := s.config(t)
			c.Wait = tt.wait
			f := newFastEST(t, c)
			c.Enroller = f
			var csrs []string
			s.ops["simpleenroll"] = func(w http.ResponseWriter, r *http.Request) {
				got := s.last("simpleenroll")
				csrs = append(csrs, string(got.csr))
				if len(csrs) > len(tt.statuses) {
					s.answer(w, *got)
					return
				}
				after := tt.after
				if after == "date" {
					after = time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat)
				}
				status(tt.statuses[len(csrs)-1], "not yet", after)(s)(w, r)
			}
			_, err := Run(t.Context(), c)
			if tt.kind != 0 {
				wantError(t, err, tt.kind, "not yet")
			} else if err != nil {
				t.Fatal(err)
			}
			if len(slices.Compact(csrs)) != 1 {
				t.Error("the request changed between attempts")
			}
			if len(f.waits) != len(tt.waits) {
				t.Fatalf("waited %v", f.waits)
			}
			for i, b := range tt.waits {
				if f.waits[i] < b[0] || f.waits[i] > b[1] {
					t.Errorf("wait %d is %v, want %v", i, f.waits[i], b)
				}
			}
		})
	}
	t.Run("given up", func(t *testing.T) {
		s := newESTServer(t, ca, nil)
		s.ops["simpleenroll"] = status(202, "not yet", "600")(s)
		c := s.config(t)
		c.Wait = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := Run(ctx, c)
		wantError(t, err, Pending, "given up")
	})
	t.Run("a server that hangs", func(t *testing.T) {
		s := newESTServer(t, ca, nil)
		s.ops["simpleenroll"] = func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		c := s.config(t)
		c.Timeout, c.Wait = 200*time.Millisecond, time.Millisecond
		_, err := Run(t.Context(), c)
		wantError(t, err, Unreachable, "deadline")
	})
}

func TestPin(t *testing.T) {
	ca, next := newTestCA(t, "good"), newTestCA(t, "next")
	s := newESTServer(t, ca, nil)
	c := s.config(t)
	c.Trust = Trust{RootSHA256: digest(ca.root)}
	mustRun(t, c)
	if n := s.count("cacerts"); n != 2 {
		t.Errorf("cacerts asked for %d times: once unverified and once verified is expected", n)
	}
	// A new root that the CA shows is added to the anchors.
	s.ops["cacerts"] = func(w http.ResponseWriter, r *http.Request) { s.certs(w, ca.root, ca.issuing, next.root) }
	c.Renew = true
	mustRun(t, c)
	if roots, err := (&Store{Dir: c.Dir}).Roots(); err != nil || len(roots) != 2 {
		t.Errorf("%d roots, %v", len(roots), err)
	}
	// A pin of another CA puts the anchors of the former one aside.
	other := newTestCA(t, "other")
	moved := newESTServer(t, other, nil)
	c.Server, c.Force, c.Trust = moved.URL, true, Trust{RootSHA256: digest(newTestCA(t, "third").root)}
	_, err := Run(t.Context(), c)
	wantError(t, err, Untrusted, "SHA-256")
	c.Trust = Trust{RootSHA256: digest(other.root)}
	mustRun(t, c)
	if roots, err := (&Store{Dir: c.Dir}).Roots(); err != nil || len(roots) != 1 || !roots[0].Equal(other.root) {
		t.Errorf("after the move: %d roots, %v", len(roots), err)
	}
	for text, good := range map[string]bool{"": false, "ab": false, strings.Repeat("ab", 32): true, strings.Repeat("AB:", 31) + "AB": true, strings.Repeat("zz", 32): false} {
		if _, err := ParseRootSHA256(text); (err == nil) != good {
			t.Errorf("ParseRootSHA256(%q): %v", text, err)
		}
	}
}

func TestOutcomeLabelAndHints(t *testing.T) {
	ca := newTestCA(t, "good")
	s := newESTServer(t, ca, nil)
	s.attrs = sequence(t, attribute(t, oidECPublicKey, oidP384))
	s.edit = func(c *x509.Certificate) { c.DNSNames = nil }
	var path string
	s.ops["simpleenroll"] = func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.Path
		w.Header().Set("Deviceca-Outcome", "quarantine")
		w.Header().Add("Deviceca-Reason", "firmware 1.0 is too old")
		w.Header().Add("Deviceca-Reason", "update to 1.2")
		s.answer(w, *s.last("simpleenroll"))
	}
	c := s.config(t)
	c.Label, c.Server = "gateway", s.URL+"/.well-known/est/"
	c.AltNames.DNS = []string{"a.example"}
	r := mustRun(t, c)
	if path != "/.well-known/est/gateway/simpleenroll" {
		t.Errorf("path %s", path)
	}
	if r.Outcome != "quarantine" || !slices.Equal(r.Reasons, []string{"firmware 1.0 is too old", "update to 1.2"}) {
		t.Errorf("%+v", r)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "a.example") {
		t.Errorf("a name that was not given: %v", r.Warnings)
	}
	if k := KeyTypeOf(load(t, c).Key.Public()); k != ECDSAP384 {
		t.Errorf("the CA's hint was not followed: %s", k)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"action", "protocol", "device", "serial", "not_before", "not_after", "renew_at", "outcome", "reasons", "files"} {
		if fields[name] == nil {
			t.Errorf("the JSON has no %s", name)
		}
	}
	c.Key, c.Force = Ed25519, true
	mustRun(t, c)
	if k := KeyTypeOf(load(t, c).Key.Public()); k != Ed25519 {
		t.Errorf("the key asked for was not made: %s", k)
	}
}

func TestHardwareKey(t *testing.T) {
	ca := newTestCA(t, "good")
	s := newESTServer(t, ca, nil)
	c := s.config(t)
	c.Signer = opaqueSigner{newKey(t)}
	r := mustRun(t, c)
	c.Renew = true
	mustRun(t, c)
	if r.Files.Key != "" || !samePublic(load(t, c).Certificate.PublicKey, c.Signer.Public()) {
		t.Errorf("%+v", r)
	}
}

func TestSecretsStayHidden(t *testing.T) {
	c := Credential{Reference: "r", Secret: testSecret}
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "credential", c, "pointer", &c)
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v", &c, c, c), b.String()} {
		if strings.Contains(s, testSecret) {
			t.Errorf("the secret shows: %s", s)
		}
	}
}

func TestRenewAt(t *testing.T) {
	ca := newTestCA(t, "good")
	var earliest, latest time.Time
	for range 40 {
		id := ca.identity(t, "sensor-1", func(c *x509.Certificate) {
			c.NotBefore = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			c.NotAfter = c.NotBefore.Add(1000 * time.Hour)
		})
		at := id.RenewAt(0)
		if at != id.RenewAt(0.5) || !id.Due(at, 0) || id.Due(at.Add(-time.Second), 0) {
			t.Fatal("not the same, or not due, at its own time")
		}
		if d := at.Sub(id.Certificate.NotBefore); d < 450*time.Hour-time.Second || d > 550*time.Hour {
			t.Errorf("renewal after %v of 1000 h", d)
		}
		if earliest.IsZero() || at.Before(earliest) {
			earliest = at
		}
		if at.After(latest) {
			latest = at
		}
	}
	if latest.Sub(earliest) < 50*time.Hour {
		t.Errorf("40 devices renew within %v", latest.Sub(earliest))
	}
}

func TestConfigRefused(t *testing.T) {
	ca := newTestCA(t, "good")
	s := newESTServer(t, ca, nil)
	for name, change := range map[string]func(*Config){
		"no directory":    func(c *Config) { c.Dir = "" },
		"no server":       func(c *Config) { c.Server = "" },
		"secret in URL":   func(c *Config) { c.Server = "https://a:b@127.0.0.1" },
		"label of two":    func(c *Config) { c.Label = "a/b" },
		"label operation": func(c *Config) { c.Label = "cacerts" },
		"bad ID":          func(c *Config) { c.Device = "a b" },
		"no ID":           func(c *Config) { c.Device = "" },
		"bad DNS name":    func(c *Config) { c.AltNames.DNS = []string{"a b"} },
		"key type":        func(c *Config) { c.Key = "dsa" },
		"fraction":        func(c *Config) { c.RenewFraction = 1.5 },
		"protocol":        func(c *Config) { c.Protocol = "scep" },
		"TLS 1.1":         func(c *Config) { c.MinTLS = tls.VersionTLS11 },
	} {
		t.Run(name, func(t *testing.T) {
			c := s.config(t)
			change(&c)
			_, err := Run(t.Context(), c)
			wantError(t, err, Usage, "")
			if HintOf(err) == "" {
				t.Error("there is no hint")
			}
		})
	}
	if s.count("simpleenroll") != 0 {
		t.Error("a request was sent")
	}
}

// TestLapsedAlert: a server that verifies client certificates in the handshake ends it with an alert; that is a
// refusal too, and the credential comes next.
func TestLapsedAlert(t *testing.T) {
	ca := newTestCA(t, "good")
	s := newESTServer(t, ca, nil)
	strict := httptest.NewUnstartedServer(s)
	strict.TLS = s.TLS.Clone()
	strict.TLS.ClientAuth, strict.TLS.ClientCAs = tls.VerifyClientCertIfGiven, pool([]*x509.Certificate{ca.root})
	strict.Config.ErrorLog = s.Config.ErrorLog
	strict.StartTLS()
	defer strict.Close()
	c := s.config(t)
	c.Server, c.Wait = strict.URL, time.Millisecond
	old := ca.identity(t, "sensor-1", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-9*time.Hour), time.Now().Add(-8*time.Hour)
	})
	save(t, &Store{Dir: c.Dir}, old)
	if r := mustRun(t, c); r.Action != Renewed || s.count("simpleenroll") != 1 || s.count("simplereenroll") != 0 {
		t.Errorf("%+v", r)
	}
}
