package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// acmeServer is a small ACME server, strict about what RFC 8555 says of requests: a request that
// breaks a rule fails the test. Tests replace single operations to make it hostile.
type acmeServer struct {
	*httptest.Server
	t    testing.TB
	ca   *testCA
	base string // URL by the name that was asked
	// ops answers an operation instead of the server: "directory", "newNonce", "newAccount", "newOrder",
	// "order", "authorization", "challenge", "finalize", "certificate", "renewalInfo".
	ops  map[string]func(w http.ResponseWriter, r *http.Request, q *acmeQuery)
	edit func(*x509.Certificate) // changes each certificate before it is signed

	outcome    string
	mustAttest bool // permanent-identifiers, by device-attest-01
	// window is what renewalInfo suggests, nothing for the zero value.
	window [2]time.Time
	badNonces,
	busy int // so many requests are answered so, first
	held int // so many looks at an order after finalize find it processing

	mu       sync.Mutex
	nonces   map[string]bool
	accounts []*acmeTestAccount
	orders   []*acmeTestOrder
	asked    map[string]int
	said     []acmeQuery
}

// acmeQuery is a verified request.
type acmeQuery struct {
	op      string
	n       int // of the resource
	account *acmeTestAccount
	key     *ecdsa.PublicKey // where there is no account yet
	payload []byte           // nil for POST-as-GET
}

type acmeTestAccount struct {
	n      int
	key    *ecdsa.PublicKey
	thumb  string
	status string
}

type acmeTestOrder struct {
	n         int
	account   *acmeTestAccount
	ids       []Identifier
	states    []string // of each authorization
	token     string
	attempted bool
	profile   string
	replaces  string
	status    string
	cert      *x509.Certificate
	looks     int
	response  []byte // to device-attest-01
}

// newACMEServer serves with a certificate of ca.
func newACMEServer(t testing.TB, ca *testCA) *acmeServer {
	t.Helper()
	s := &acmeServer{t: t, ca: ca, nonces: map[string]bool{}, asked: map[string]int{}, ops: map[string]func(http.ResponseWriter, *http.Request, *acmeQuery){}}
	key := newKey(t)
	cert := ca.leaf(t, "acme server", key.Public(), func(c *x509.Certificate) {
		c.IPAddresses, c.DNSNames, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw, ca.issuing.Raw}, PrivateKey: key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// config enrols "gw-1" at s with the good credential, into a fresh directory.
func (s *acmeServer) config(t testing.TB) Config {
	return Config{Dir: t.TempDir(), Protocol: "acme", Server: s.URL, Device: "gw-1", Trust: Trust{Roots: []*x509.Certificate{s.ca.root}},
		Credential: &Credential{Reference: testUser, Secret: testSecret}, Wait: time.Minute, Timeout: 10 * time.Second}
}

// fastACME is an ACME client whose clock runs ahead while it would wait.
type fastACME struct {
	*ACME
	waits []time.Duration
	ahead time.Duration
}

func newFastACME(t testing.TB, c Config) *fastACME {
	t.Helper()
	f := new(fastACME)
	e, err := NewACME(ACMEConfig{Server: c.Server, Label: c.Label, Trust: c.Trust, Timeout: c.Timeout, Wait: c.Wait, Accounts: &Store{Dir: c.Dir},
		Credential: c.Credential, HTTP01: c.HTTP01, Attester: c.Attester, Now: func() time.Time { return time.Now().Add(f.ahead) }})
	if err != nil {
		t.Fatal(err)
	}
	e.sleep = func(ctx context.Context, d time.Duration) error {
		f.waits = append(f.waits, d)
		f.ahead += d
		return ctx.Err()
	}
	f.ACME = e
	return f
}

func (s *acmeServer) problem(w http.ResponseWriter, status int, word, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"type": acmeErrorPrefix + word, "detail": detail, "status": status})
}

func (s *acmeServer) json(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (s *acmeServer) nonce(w http.ResponseWriter) {
	n := b64.EncodeToString(serialNumber(s.t).Bytes())
	s.nonces[n] = true
	w.Header().Set("Replay-Nonce", n)
}

func (s *acmeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/.well-known/est/cacerts" {
		http.NotFound(w, r) // a server that has no EST
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base = "https://" + r.Host
	op, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/acme/"), "/")
	s.asked[op]++
	q := &acmeQuery{op: op}
	q.n, _ = strconv.Atoi(rest)
	if h := s.ops[op]; h != nil && (op == "directory" || op == "newNonce" || op == "renewalInfo") {
		h(w, r, q)
		return
	}
	switch {
	case op == "directory" && r.Method == http.MethodGet:
		s.json(w, 200, s.directory())
		return
	case op == "newNonce" && r.Method == http.MethodHead:
		s.nonce(w)
		return
	case op == "renewalInfo" && r.Method == http.MethodGet:
		s.renewalInfo(w, rest)
		return
	}
	s.nonce(w)
	if s.busy > 0 {
		s.busy--
		w.Header().Set("Retry-After", "3")
		s.problem(w, 503, "serverInternal", "the token is away")
		return
	}
	if fault, retry := s.verify(r, q); retry {
		s.problem(w, 400, "badNonce", "again")
		return
	} else if fault != "" {
		s.t.Errorf("%s: %s", op, fault)
		s.problem(w, 400, "malformed", fault)
		return
	}
	s.said = append(s.said, *q)
	if h := s.ops[op]; h != nil {
		h(w, r, q)
		return
	}
	s.answer(w, q)
}

func (s *acmeServer) directory() map[string]any {
	d := map[string]any{"meta": map[string]any{"externalAccountRequired": true, "termsOfService": s.base + "/terms"}}
	for _, name := range []string{"newNonce", "newAccount", "newOrder"} {
		d[name] = s.base + "/acme/" + name
	}
	if !s.window[0].IsZero() {
		d["renewalInfo"] = s.base + "/acme/renewalInfo"
	}
	return d
}

func (s *acmeServer) renewalInfo(w http.ResponseWriter, id string) {
	if !slices.ContainsFunc(s.orders, func(o *acmeTestOrder) bool { return o.cert != nil && certificateID(o.cert) == id }) {
		s.problem(w, 404, "malformed", "no such certificate")
		return
	}
	w.Header().Set("Retry-After", "21600")
	s.json(w, 200, map[string]any{"suggestedWindow": map[string]any{"start": s.window[0], "end": s.window[1]}, "explanationURL": "https://ca.example/why"})
}

// verify checks a signed request by RFC 8555 §6, and says what is wrong.
func (s *acmeServer) verify(r *http.Request, q *acmeQuery) (fault string, badNonce bool) {
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/jose+json" || r.UserAgent() == "" {
		return "not a POST of application/jose+json", false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error(), false
	}
	var outer map[string]string
	if err := json.Unmarshal(body, &outer); err != nil || len(outer) != 3 {
		return "not a flattened JWS: " + string(body), false
	}
	header, err := b64.DecodeString(outer["protected"])
	if err != nil {
		return err.Error(), false
	}
	payload, err := b64.DecodeString(outer["payload"])
	if err != nil {
		return err.Error(), false
	}
	signature, err := b64.DecodeString(outer["signature"])
	if err != nil || len(signature) != 64 {
		return "the signature is not 64 octets", false
	}
	var h struct {
		Alg, KID, Nonce, URL string
		JWK                  *jwk
	}
	decoder := json.NewDecoder(bytes.NewReader(header))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&h); err != nil {
		return err.Error(), false
	}
	if h.Alg != "ES256" || h.URL != s.base+r.URL.Path || (h.JWK == nil) == (h.KID == "") || (h.JWK != nil) != (q.op == "newAccount") {
		return "a bad header: " + string(header), false
	}
	if !s.nonces[h.Nonce] {
		return "a nonce used twice", false
	}
	delete(s.nonces, h.Nonce)
	key := (*ecdsa.PublicKey)(nil)
	if h.JWK != nil {
		if key, err = publicOf(h.JWK); err != nil {
			return err.Error(), false
		}
		q.key = key
	} else {
		i := slices.IndexFunc(s.accounts, func(a *acmeTestAccount) bool { return h.KID == fmt.Sprintf("%s/acme/account/%d", s.base, a.n) })
		if i < 0 {
			return "no account " + h.KID, false
		}
		q.account, key = s.accounts[i], s.accounts[i].key
	}
	sum := sha256.Sum256([]byte(outer["protected"] + "." + outer["payload"]))
	if !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return "the signature does not verify", false
	}
	if outer["payload"] != "" {
		q.payload = payload
	}
	if s.badNonces > 0 {
		s.badNonces--
		return "", true
	}
	return "", false
}

func publicOf(k *jwk) (*ecdsa.PublicKey, error) {
	x, err := b64.DecodeString(k.X)
	if err != nil {
		return nil, err
	}
	y, err := b64.DecodeString(k.Y)
	if err != nil {
		return nil, err
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
}

// answer is the honest behaviour.
func (s *acmeServer) answer(w http.ResponseWriter, q *acmeQuery) {
	if q.account != nil && q.account.status != "valid" {
		s.problem(w, 401, "accountDoesNotExist", "no such account")
		return
	}
	switch q.op {
	case "newAccount":
		s.newAccount(w, q)
	case "newOrder":
		s.newOrder(w, q)
	case "order":
		o := s.orders[q.n]
		if o.status == "processing" {
			if o.looks++; o.looks > s.held {
				o.status = "valid"
			}
		}
		s.order(w, 200, o)
	case "authorization":
		o := s.orders[q.n/10]
		s.json(w, 200, s.authorization(o, q.n%10))
	case "challenge":
		s.challenge(w, q, s.orders[q.n/10], q.n%10)
	case "finalize":
		s.finalize(w, q, s.orders[q.n])
	case "certificate":
		if s.outcome != "" {
			w.Header().Set("Deviceca-Outcome", s.outcome)
			w.Header().Add("Deviceca-Reason", "the quote\tis old")
		}
		s.chain(w, s.orders[q.n].cert, s.ca.issuing)
	default:
		s.problem(w, 404, "malformed", "no such resource")
	}
}

func (s *acmeServer) chain(w http.ResponseWriter, certs ...*x509.Certificate) {
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	for _, c := range certs {
		pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
}

func (s *acmeServer) newAccount(w http.ResponseWriter, q *acmeQuery) {
	var ask struct {
		TermsOfServiceAgreed   bool
		OnlyReturnExisting     bool
		ExternalAccountBinding struct{ Protected, Payload, Signature string }
	}
	if err := json.Unmarshal(q.payload, &ask); err != nil || !ask.TermsOfServiceAgreed && !ask.OnlyReturnExisting {
		s.problem(w, 400, "malformed", "agree to the terms")
		return
	}
	for _, a := range s.accounts {
		if a.key.Equal(q.key) {
			w.Header().Set("Location", fmt.Sprintf("%s/acme/account/%d", s.base, a.n))
			s.json(w, 200, map[string]string{"status": a.status})
			return
		}
	}
	if ask.OnlyReturnExisting {
		s.problem(w, 400, "accountDoesNotExist", "no account has this key")
		return
	}
	b := ask.ExternalAccountBinding
	header, _ := b64.DecodeString(b.Protected)
	inner, _ := b64.DecodeString(b.Payload)
	mac, _ := b64.DecodeString(b.Signature)
	var bound jwk
	want := fmt.Sprintf(`{"alg":"HS256","kid":%q,"url":%q}`, testUser, s.base+"/acme/newAccount")
	secret, err := bindingKey(testSecret)
	if err != nil {
		s.t.Error(err)
	}
	check := hmac.New(sha256.New, secret)
	io.WriteString(check, b.Protected+"."+b.Payload)
	public, keyErr := (*ecdsa.PublicKey)(nil), json.Unmarshal(inner, &bound)
	if keyErr == nil {
		public, keyErr = publicOf(&bound)
	}
	if string(header) != want || keyErr != nil || !public.Equal(q.key) || !hmac.Equal(mac, check.Sum(nil)) {
		s.problem(w, 401, "unauthorized", "the binding is\x1b[31m not good")
		return
	}
	authorization, err := keyAuthorization("", q.key)
	if err != nil {
		s.t.Error(err)
	}
	a := &acmeTestAccount{n: len(s.accounts), key: q.key, thumb: authorization, status: "valid"}
	s.accounts = append(s.accounts, a)
	w.Header().Set("Location", fmt.Sprintf("%s/acme/account/%d", s.base, a.n))
	s.json(w, 201, map[string]string{"status": "valid"})
}

func namesDevice(id Identifier) bool {
	return id.Type == "permanent-identifier" || id.Type == "hardware-module"
}

func (s *acmeServer) newOrder(w http.ResponseWriter, q *acmeQuery) {
	var ask struct {
		Identifiers       []Identifier
		Profile, Replaces string
	}
	if err := json.Unmarshal(q.payload, &ask); err != nil || len(ask.Identifiers) == 0 {
		s.problem(w, 400, "malformed", "no identifiers")
		return
	}
	o := &acmeTestOrder{n: len(s.orders), account: q.account, ids: ask.Identifiers, profile: ask.Profile, replaces: ask.Replaces, token: b64.EncodeToString(serialNumber(s.t).Bytes()), status: "pending"}
	for _, id := range o.ids {
		state := "pending"
		if namesDevice(id) && !s.mustAttest {
			state = "valid"
		}
		o.states = append(o.states, state)
	}
	s.orders = append(s.orders, o)
	s.settle(o)
	w.Header().Set("Location", fmt.Sprintf("%s/acme/order/%d", s.base, o.n))
	s.order(w, 201, o)
}

// settle makes an order ready when all its authorizations are valid.
func (s *acmeServer) settle(o *acmeTestOrder) {
	switch {
	case o.status != "pending":
	case slices.Contains(o.states, "invalid"):
		o.status = "invalid"
	case !slices.Contains(o.states, "pending"):
		o.status = "ready"
	}
}

func (s *acmeServer) order(w http.ResponseWriter, status int, o *acmeTestOrder) {
	v := map[string]any{"status": o.status, "identifiers": o.ids, "finalize": fmt.Sprintf("%s/acme/finalize/%d", s.base, o.n)}
	var list []string
	for i := range o.states {
		list = append(list, fmt.Sprintf("%s/acme/authorization/%d", s.base, 10*o.n+i))
	}
	v["authorizations"] = list
	if o.status == "valid" {
		v["certificate"] = fmt.Sprintf("%s/acme/certificate/%d", s.base, o.n)
	}
	if o.status == "processing" {
		w.Header().Set("Retry-After", "2")
	}
	s.json(w, status, v)
}

func (s *acmeServer) authorization(o *acmeTestOrder, i int) any {
	kind := "http-01"
	if namesDevice(o.ids[i]) {
		kind = "device-attest-01"
	}
	c := map[string]any{"type": kind, "url": fmt.Sprintf("%s/acme/challenge/%d", s.base, 10*o.n+i), "status": o.states[i], "token": o.token + strconv.Itoa(i)}
	if o.states[i] == "invalid" {
		c["error"] = map[string]string{"type": acmeErrorPrefix + "incorrectResponse", "detail": "that is not it"}
	}
	other := map[string]any{"type": "dns-01", "url": c["url"], "status": "pending", "token": o.token}
	return map[string]any{"status": o.states[i], "identifier": o.ids[i], "challenges": []any{other, c}}
}

func (s *acmeServer) challenge(w http.ResponseWriter, q *acmeQuery, o *acmeTestOrder, i int) {
	authorization := o.token + strconv.Itoa(i) + q.account.thumb
	good := false
	if namesDevice(o.ids[i]) {
		o.response = q.payload
		good = strings.Contains(string(q.payload), b64.EncodeToString([]byte("evidence for "+authorization)))
	} else {
		if string(q.payload) != "{}" {
			s.t.Errorf("the response to http-01 is %q", q.payload)
		}
		good = s.fetch(o, i) == authorization
	}
	o.states[i] = map[bool]string{true: "valid", false: "invalid"}[good]
	s.settle(o)
	s.json(w, 200, map[string]string{"type": "http-01", "status": o.states[i], "token": o.token})
}

// http01At is where the tests' devices answer.
var http01At = func() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}()

// fetch asks the device, for the token and for what it must not answer.
func (s *acmeServer) fetch(o *acmeTestOrder, i int) string {
	get := func(method, path string) (int, string) {
		req, _ := http.NewRequest(method, "http://"+http01At+path, nil)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	path := "/.well-known/acme-challenge/" + o.token + strconv.Itoa(i)
	for _, other := range []string{"/", path + "x", "/.well-known/acme-challenge/", strings.ToUpper(path), "/." + path, path + "/"} {
		if code, text := get("GET", other); code != 404 {
			s.t.Errorf("the device answers %d %q at %s", code, text, other)
		}
	}
	if code, _ := get("POST", path); code != 405 {
		s.t.Errorf("the device answers POST with %d", code)
	}
	code, text := get("GET", path)
	if code != 200 {
		s.t.Errorf("the device answers %d %q", code, text)
	}
	return text
}

func (s *acmeServer) finalize(w http.ResponseWriter, q *acmeQuery, o *acmeTestOrder) {
	var ask struct{ CSR string }
	if err := json.Unmarshal(q.payload, &ask); err != nil || o.status != "ready" {
		s.problem(w, 403, "orderNotReady", "the order is "+o.status)
		return
	}
	der, err := b64.DecodeString(ask.CSR)
	if err != nil {
		s.problem(w, 400, "badCSR", err.Error())
		return
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil {
		s.problem(w, 400, "badCSR", "it does not verify")
		return
	}
	got := []Identifier{}
	for _, name := range csr.DNSNames {
		got = append(got, Identifier{"dns", name})
	}
	for _, ip := range csr.IPAddresses {
		got = append(got, Identifier{"ip", ip.String()})
	}
	for _, id := range o.ids {
		if !namesDevice(id) && !slices.Contains(got, id) || len(got) >= len(o.ids) {
			s.t.Errorf("the CSR is for %v, the order for %v", got, o.ids)
		}
	}
	o.cert = s.ca.leaf(s.t, "", csr.PublicKey, func(c *x509.Certificate) {
		c.RawSubject, c.DNSNames, c.IPAddresses = csr.RawSubject, csr.DNSNames, csr.IPAddresses
		if s.edit != nil {
			s.edit(c)
		}
	})
	o.status = "valid"
	if s.held > 0 {
		o.status = "processing"
	}
	s.order(w, 200, o)
}

// count is how often an operation was asked for.
func (s *acmeServer) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[op]
}
