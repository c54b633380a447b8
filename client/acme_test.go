package client

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// TestACMEEnroll: from nothing to a certificate, with and without names on the network, and its renewal.
func TestACMEEnroll(t *testing.T) {
	s := newACMEServer(t, newTestCA(t, "good"))
	c := s.config(t)
	c.Label, c.HTTP01 = "gateway", http01At
	c.AltNames = AltNames{DNS: []string{"gw-1.example"}, IP: []net.IP{net.IPv4(192, 0, 2, 7)}}
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	id, err := (&Store{Dir: c.Dir}).Load()
	if err != nil {
		t.Fatal(err)
	}
	if r.Action != Enrolled || r.Protocol != "acme" || r.Device != "gw-1" || r.Outcome != "issue" || len(r.Warnings) != 0 || len(id.Chain) != 1 {
		t.Errorf("%+v", r)
	}
	want := []Identifier{{"permanent-identifier", "gw-1"}, {"dns", "gw-1.example"}, {"ip", "192.0.2.7"}}
	if o := s.orders[0]; !slices.Equal(o.ids, want) || o.profile != "gateway" || o.replaces != "" {
		t.Errorf("ordered %v of profile %q, replacing %q", o.ids, o.profile, o.replaces)
	}
	if _, err := net.DialTimeout("tcp", http01At, time.Second); err == nil {
		t.Error("the listener is still open")
	}
	info, err := os.Stat(c.Dir + "/" + AccountFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the account's file: %v, %v", info, err)
	}
	// Renewal needs no credential, and no new account.
	c.Credential, c.Renew = nil, true
	r2, err := Run(t.Context(), c)
	if err != nil || r2.Action != Renewed || r2.Serial == r.Serial {
		t.Fatalf("%+v, %v", r2, err)
	}
	if len(s.accounts) != 1 || len(s.orders) != 2 || !slices.Equal(s.orders[1].ids, want) {
		t.Errorf("%d accounts, %d orders", len(s.accounts), len(s.orders))
	}
	s.outcome = "quarantine"
	if r, err := Run(t.Context(), c); err != nil || r.Outcome != "quarantine" || !slices.Equal(r.Reasons, []string{"the quote is old"}) {
		t.Errorf("%+v, %v", r, err)
	}
	id, err = (&Store{Dir: c.Dir}).Load()
	if err != nil {
		t.Fatal(err)
	}
	c.Renew = false
	if r3, err := Run(t.Context(), c); err != nil || r3.Action != Current || r3.Serial != id.Serial() {
		t.Errorf("%+v, %v", r3, err)
	}
}

// TestACMEServerRenamed: the account goes along to another name of the same server, costs no use of a credential, and is not lost to a
// server that does not know it.
func TestACMEServerRenamed(t *testing.T) {
	ca := newTestCA(t, "good")
	s, stranger := newACMEServer(t, ca), newACMEServer(t, ca)
	c := s.config(t)
	mustRun(t, c)
	accounts := func() []*Account {
		t.Helper()
		list, err := (&Store{Dir: c.Dir}).LoadAccounts()
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	first := accounts()[0]
	c.Credential, c.Renew = nil, true
	// A contact with another server, which has the CA's trust and does not know the account.
	c.Server = stranger.URL
	_, err := Run(t.Context(), c)
	wantError(t, err, Unauthenticated, "credential")
	c.Credential = &Credential{Reference: testUser, Secret: "spent"}
	_, err = Run(t.Context(), c)
	wantError(t, err, Unauthenticated, "binding is.[31m not good")
	c.Credential = nil
	if list := accounts(); len(list) != 2 || !list[0].Key.Equal(first.Key) || list[0].URL != first.URL || list[1].URL != "" || len(stranger.accounts) != 0 {
		t.Errorf("after another server: %+v", list)
	}
	// The same server by another name.
	c.Server = strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	if r, err := Run(t.Context(), c); err != nil || r.Action != Renewed || len(s.accounts) != 1 {
		t.Fatalf("%+v, %d accounts, %v", r, len(s.accounts), err)
	}
	if list := accounts(); len(list) != 3 || !list[0].Key.Equal(first.Key) || !strings.HasPrefix(list[0].URL, "https://localhost:") {
		t.Errorf("under the other name: %+v", list)
	}
	asked := s.count("newAccount")
	for range 2 { // and back
		c.Server = s.URL
		mustRun(t, c)
		c.Server = strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
		mustRun(t, c)
	}
	if n := s.count("newAccount"); n != asked || len(accounts()) != 3 {
		t.Errorf("newAccount was asked %d times more; %d accounts", n-asked, len(accounts()))
	}
}

// TestAccountsAreBounded: what no server answered for leaves first.
func TestAccountsAreBounded(t *testing.T) {
	var kept []*Account
	for _, url := range []string{"1", "", "3", "4", "5", "6", "7", "8", ""} {
		kept = append(kept, &Account{URL: url})
	}
	var left []string
	for _, a := range bounded(kept) {
		left = append(left, a.URL)
	}
	if got := strings.Join(left, ","); got != "1,3,4,5,6,7,8" {
		t.Error(got)
	}
	if got := bounded(bounded(kept)[:7]); len(got) != 7 {
		t.Errorf("%d", len(got))
	}
}

// TestACMEAccount: one account is made, whatever gets lost, and another only for another credential or server.
func TestACMEAccount(t *testing.T) {
	s := newACMEServer(t, newTestCA(t, "good"))
	c := s.config(t)
	lose := true
	s.ops["newAccount"] = func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
		if lose {
			lose = false
			s.newAccount(httptestNowhere{http.Header{}}, q)
			w.Header().Set("Content-Type", "text/plain")
			return
		}
		s.newAccount(w, q)
	}
	_, err := Run(t.Context(), c)
	wantError(t, err, BadReply, "text/plain")
	if _, err := Run(t.Context(), c); err != nil || len(s.accounts) != 1 {
		t.Fatalf("after a lost answer: %d accounts, %v", len(s.accounts), err)
	}
	c.Renew = true
	if _, err := Run(t.Context(), c); err != nil || len(s.accounts) != 1 || s.asked["newAccount"] != 2 {
		t.Errorf("with the same credential: %d accounts, %v", len(s.accounts), err)
	}
	other := c
	other.Force, other.Credential = true, &Credential{Reference: "ref-2", Secret: testSecret}
	_, err = Run(t.Context(), other)
	wantError(t, err, Unauthenticated, "binding is.[31m not good")
	// The refused key is never bound, and takes nobody's place.
	if _, err := Run(t.Context(), c); err != nil || len(s.accounts) != 1 {
		t.Errorf("%d accounts, %v", len(s.accounts), err)
	}
	// A server that lost the account gets a new one.
	s.accounts[0].status = "gone"
	if _, err := Run(t.Context(), c); err != nil || len(s.accounts) != 2 {
		t.Errorf("%d accounts, %v", len(s.accounts), err)
	}
	s.accounts[1].status = "gone"
	c.Credential = nil
	_, err = Run(t.Context(), c)
	wantError(t, err, Unauthenticated, "credential")
	if err := os.WriteFile(c.Dir+"/"+AccountFile, []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), c)
	wantError(t, err, Local, AccountFile)

	fresh := s.config(t)
	fresh.Credential = &Credential{Reference: testUser, Secret: "wrong"}
	_, err = Run(t.Context(), fresh)
	wantError(t, err, Unauthenticated, "binding")
	wantNoIdentity(t, fresh.Dir)
	fresh.Credential, fresh.IDevID = nil, s.ca.identity(t, "gw-1", nil).TLS()
	_, err = Run(t.Context(), fresh)
	wantError(t, err, Refused, "no way to enrol with a certificate")
}

// httptestNowhere is an answer that is lost.
type httptestNowhere struct{ header http.Header }

func (n httptestNowhere) Header() http.Header         { return n.header }
func (n httptestNowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n httptestNowhere) WriteHeader(int)             {}

// testAttester attests a key that it has.
type testAttester struct {
	key      crypto.Signer
	quote    []byte
	named    []Identifier
	warnings []string
	err      error
}

func (a *testAttester) Identifiers() []Identifier { return a.named }

func (a *testAttester) Attest(_ context.Context, keyAuthorization string) (*Attestation, error) {
	if a.err != nil {
		return nil, a.err
	}
	return &Attestation{Key: a.key, Object: []byte("evidence for " + keyAuthorization), Quote: a.quote, Warnings: a.warnings}, nil
}

func TestACMEDeviceAttest(t *testing.T) {
	s := newACMEServer(t, newTestCA(t, "good"))
	s.mustAttest = true
	c := s.config(t)
	key := newKey(t)
	c.Signer, c.Attester = key, &testAttester{key: key, quote: []byte("state")}
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(s.orders[0].response); !strings.Contains(text, `"quote":"`+b64.EncodeToString([]byte("state"))+`"`) {
		t.Errorf("the response is %s", text)
	}
	if r.Files.Key != "" {
		t.Error("a key file is named for a key in hardware")
	}
	c.Renew, c.Attester = true, &testAttester{key: key, warnings: []string{"there is no quote"}}
	if r, err = Run(t.Context(), c); err != nil || strings.Contains(string(s.orders[1].response), "quote") || !slices.Contains(r.Warnings, "there is no quote") {
		t.Errorf("%v; the response is %s; warnings %q", err, s.orders[1].response, r.Warnings)
	}
	for name, tt := range map[string]struct {
		attester Attester
		kind     Kind
		text     string
	}{
		"another key": {&testAttester{key: newKey(t)}, Usage, "not the one"},
		"no hardware": {&testAttester{err: errors.New("no TPM answers")}, Local, "no TPM answers"},
		"no attester": {nil, Refused, "device-attest-01"},
	} {
		c.Attester = tt.attester
		_, err := Run(t.Context(), c)
		if wantError(t, err, tt.kind, tt.text); t.Failed() {
			t.Log(name)
		}
	}
}

// TestACMEDeviceIdentifier: the order names the device as the evidence does.
func TestACMEDeviceIdentifier(t *testing.T) {
	permanent := func(value string) Identifier { return Identifier{"permanent-identifier", value} }
	hardware := func(value string) Identifier { return Identifier{"hardware-module", value} }
	for name, c := range map[string]struct {
		named []Identifier
		want  Identifier
	}{
		"by its ID":              {[]Identifier{hardware("gw-1/1.2.3"), permanent("gw-1")}, permanent("gw-1")},
		"by its hardware":        {[]Identifier{hardware("gw-1/1.2.3")}, hardware("gw-1/1.2.3")},
		"under an assigner":      {[]Identifier{hardware("SN7/1.2.3"), permanent("gw-1/1.2.4")}, permanent("gw-1/1.2.4")},
		"in another case":        {[]Identifier{permanent("GW-1")}, permanent("GW-1")},
		"by its serial number":   {[]Identifier{permanent("other"), hardware("SN7/1.2.3")}, hardware("SN7/1.2.3")},
		"as another":             {[]Identifier{permanent("other")}, permanent("gw-1")},
		"without evidence of it": {nil, permanent("gw-1")},
	} {
		s := newACMEServer(t, newTestCA(t, "good"))
		s.mustAttest = true
		config, key := s.config(t), newKey(t)
		config.Signer, config.Attester = key, &testAttester{key: key, named: c.named}
		if _, err := Run(t.Context(), config); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := s.orders[0].ids[0]; got != c.want {
			t.Errorf("%s: %v was ordered", name, got)
		}
	}
}

// TestACMEResume: an order goes on where the last attempt ended, with its key.
func TestACMEResume(t *testing.T) {
	s := newACMEServer(t, newTestCA(t, "good"))
	c := s.config(t)
	s.held = 1000 // a person must approve
	f := newFastACME(t, c)
	c.Enroller = f
	_, err := Run(t.Context(), c)
	wantError(t, err, Pending, "not decided")
	if len(f.waits) < 10 || f.waits[0] < 2*time.Second {
		t.Errorf("waited %v", f.waits)
	}
	wantNoIdentity(t, c.Dir)
	key := s.orders[0].cert.PublicKey
	s.held = 0
	c.Enroller = newFastACME(t, c)
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	id, err := (&Store{Dir: c.Dir}).Load()
	if err != nil || !samePublic(key, id.Key.Public()) || len(s.orders) != 1 || s.asked["finalize"] != 1 {
		t.Errorf("%d orders, %d finalized, %v", len(s.orders), s.asked["finalize"], err)
	}

	// Of an order that came to nothing, and of one that the server forgot, the key is used for another.
	for name, spoil := range map[string]func(){
		"invalid": func() { s.orders[len(s.orders)-1].status = "invalid" },
		"forgotten": func() {
			s.ops["order"] = func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
				s.problem(w, 404, "malformed", "no such order")
			}
		},
	} {
		c := s.config(t)
		s.ops["finalize"] = func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
			s.problem(w, 503, "serverInternal", "away")
		}
		c.Enroller = newFastACME(t, c)
		_, err := Run(t.Context(), c)
		wantError(t, err, Busy, "away")
		before := len(s.orders)
		delete(s.ops, "finalize")
		spoil()
		if _, err := Run(t.Context(), c); err != nil || len(s.orders) != before+1 {
			t.Errorf("%s: %d orders more, %v", name, len(s.orders)-before, err)
		}
		delete(s.ops, "order")
	}
}

// TestACMERetries: what passes is waited for, and what does not is said at once.
func TestACMERetries(t *testing.T) {
	s := newACMEServer(t, newTestCA(t, "good"))
	c := s.config(t)
	s.badNonces, s.busy = 2, 2
	f := newFastACME(t, c)
	c.Enroller = f
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if len(f.waits) != 2 || f.waits[0] < 3*time.Second {
		t.Errorf("waited %v", f.waits)
	}
	s.badNonces = 1000
	c.Renew = true
	_, err := Run(t.Context(), c)
	wantError(t, err, BadRequest, "badNonce")
	s.badNonces, s.busy = 0, 1000
	_, err = Run(t.Context(), c)
	wantError(t, err, Busy, "token is away")
	s.busy = 0
	for word, kind := range map[string]Kind{"rejectedIdentifier": Refused, "unauthorized": Refused, "badCSR": BadRequest, "badPublicKey": BadRequest, "serverInternal": BadReply,
		"badAttestationStatement": Refused, "compound": Refused, "somethingNew": Refused} {
		s.ops["finalize"] = func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(403)
			w.Write([]byte(`{"type":"` + acmeErrorPrefix + word + `","detail":"because\u001b[31m","subproblems":[{"type":"` + acmeErrorPrefix + `dns","detail":"of this","identifier":{"type":"dns","value":"a.example"}}]}`))
		}
		_, err := Run(t.Context(), c)
		wantError(t, err, kind, word+": because.[31m; a.example: dns of this")
		if err := (&Store{Dir: c.Dir}).remove(requestFile); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Run(ctx, c)
	wantError(t, err, Unreachable, "given up")
}

// TestACMEChallenges: what the device cannot prove is said with what would help, and a validation that fails with the CA's reason.
func TestACMEChallenges(t *testing.T) {
	s := newACMEServer(t, newTestCA(t, "good"))
	c := s.config(t)
	c.AltNames.DNS = []string{"gw-1.example"}
	_, err := Run(t.Context(), c)
	wantError(t, err, Refused, "http-01")
	if !strings.Contains(HintOf(err), "-http01") {
		t.Errorf("the hint is %q", HintOf(err))
	}
	c.HTTP01 = "192.0.2.1:8080"
	_, err = Run(t.Context(), c)
	wantError(t, err, Local, "nothing can be served")
	c.HTTP01 = http01At
	s.ops["challenge"] = func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
		o := s.orders[q.n/10]
		o.states[q.n%10] = "invalid"
		s.settle(o)
		s.json(w, 200, map[string]string{"status": "invalid"})
	}
	_, err = Run(t.Context(), c)
	wantError(t, err, Refused, "incorrectResponse: that is not it")
	delete(s.ops, "challenge")
	if _, err := Run(t.Context(), c); err != nil {
		t.Error(err)
	}
	c = s.config(t)
	if c.AltNames.URI, err = uriList("urn:x:y"); err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), c)
	wantError(t, err, Usage, "urn:x:y")
	for _, server := range []string{"http://127.0.0.1:1", "ftp://x", "", "https://a:b@ca.example", "https://ca.example?x"} {
		c.Server = server
		_, err := Run(t.Context(), c)
		wantError(t, err, Usage, "")
	}
	c = s.config(t)
	c.Trust = Trust{RootSHA256: digest(s.ca.root)}
	_, err = Run(t.Context(), c)
	wantError(t, err, Usage, "root certificate")
}

func uriList(text string) ([]*url.URL, error) {
	u, err := url.Parse(text)
	return []*url.URL{u}, err
}

// TestACMERenewalInfo: the CA's window counts, is asked for no oftener than it says, and survives what goes wrong.
func TestACMERenewalInfo(t *testing.T) {
	s := newACMEServer(t, newTestCA(t, "good"))
	now := time.Now().Truncate(time.Second)
	s.window = [2]time.Time{now.Add(time.Hour), now.Add(2 * time.Hour)}
	c := s.config(t)
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if r.RenewAt.Before(s.window[0]) || r.RenewAt.After(s.window[1]) || s.count("renewalInfo") != 1 {
		t.Errorf("renewal at %v; asked %d times", r.RenewAt, s.count("renewalInfo"))
	}
	run := func(ahead time.Duration) Result {
		t.Helper()
		c.Now = func() time.Time { return now.Add(ahead) }
		r, err := Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if again := run(time.Minute); again.Action != Current || !again.RenewAt.Equal(r.RenewAt) || s.count("renewalInfo") != 1 {
		t.Errorf("%+v; asked %d times", again, s.count("renewalInfo"))
	}
	if shown, err := Show(c); err != nil || !shown.RenewAt.Equal(r.RenewAt) {
		t.Errorf("Show: %v, %v", shown.RenewAt, err)
	}
	renewed := run(r.RenewAt.Sub(now) + time.Second)
	if renewed.Action != Renewed || s.orders[1].replaces == "" || s.orders[1].replaces != certificateID(s.orders[0].cert) {
		t.Errorf("%+v; it replaces %q", renewed, s.orders[1].replaces)
	}
	// A revocation pulls the window to now.
	s.window = [2]time.Time{now.Add(-2 * time.Hour), now.Add(-time.Hour)}
	if r := run(r.RenewAt.Sub(now) + 7*time.Hour); r.Action != Renewed {
		t.Errorf("%+v", r)
	}
	// What is no advice leaves what there is, and is asked for again in six hours.
	s.window = [2]time.Time{now.Add(20 * time.Hour), now.Add(21 * time.Hour)}
	c.Renew = true
	kept := run(7 * time.Hour)
	c.Renew = false
	asked, empty := s.count("renewalInfo"), now.Add(9*time.Hour).UTC().Format(time.RFC3339)
	for i, bad := range []string{`{}`, `{"suggestedWindow":{"start":"` + empty + `","end":"` + empty + `"}}`, `{"suggestedWindow":{"start":"2099-01-01T00:00:00Z","end":"2099-02-01T00:00:00Z"}}`, `garbage`} {
		s.ops["renewalInfo"] = func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte(bad))
		}
		store := &Store{Dir: c.Dir}
		id, err := store.Load()
		if err != nil {
			t.Fatal(err)
		}
		advice := store.loadAdvice(id.Certificate)
		advice.Again = now
		if err := store.saveAdvice(id.Certificate, advice); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if r := run(8 * time.Hour); r.Action != Current || !r.RenewAt.Equal(kept.RenewAt) {
				t.Errorf("after %s: %+v", bad, r)
			}
		}
		if got := s.count("renewalInfo") - asked; got != i+1 {
			t.Errorf("after %s: asked %d times", bad, got)
		}
	}
	// An order that may not replace is made without.
	delete(s.ops, "renewalInfo")
	s.ops["newOrder"] = func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
		if strings.Contains(string(q.payload), "replaces") {
			s.problem(w, 409, "alreadyReplaced", "by another")
			return
		}
		s.newOrder(w, q)
	}
	c.Renew = true
	if r := run(8 * time.Hour); r.Action != Renewed {
		t.Errorf("%+v", r)
	}
}

// TestCertificateID is the example of RFC 9773, appendix A.
func TestCertificateID(t *testing.T) {
	serial, _ := hex.DecodeString("87654321")
	keyID, _ := hex.DecodeString("69885b6b87464041e1b37b847ba0ae2cde01c8d4")
	c := &x509.Certificate{AuthorityKeyId: keyID, SerialNumber: serialNumber(t)}
	c.SerialNumber.SetBytes(serial)
	if got := certificateID(c); got != "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE" {
		t.Errorf("got %s", got)
	}
}

// TestKeyAuthorization: the thumbprint is the one that another implementation makes.
func TestKeyAuthorization(t *testing.T) {
	for range 20 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		got, err := keyAuthorization("token", &key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := acme.JWKThumbprint(key.Public()); err != nil || got != "token."+want {
			t.Errorf("%s, want %s, %v", got, want, err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyAuthorization("token", &key.PublicKey); err == nil {
		t.Error("a key on another curve is taken")
	}
}
