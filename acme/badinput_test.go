package acme_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/acme"
)

// raw puts a JWS together from parts that need not fit.
func raw(t testing.TB, sign func(input string) []byte, protected, payload string) []byte {
	t.Helper()
	p, b := b64([]byte(protected)), b64([]byte(payload))
	return must[[]byte](t)(json.Marshal(map[string]string{"protected": p, "payload": b, "signature": b64(sign(p + "." + b))}))
}

// What is wrong with a message has its problem type, and costs no more than a fresh nonce.
func TestBadMessages(t *testing.T) {
	e := newEnv(t)
	a, other := e.device("lamp-1"), e.device("lamp-2")
	url := e.url("/new-order")
	order := map[string]any{"identifiers": []acme.Identifier{pid("lamp-1")}}
	text := string(must[[]byte](t)(json.Marshal(order)))
	head := func(change func(header)) header {
		h := header{"alg": "ES256", "kid": a.kid, "nonce": e.takeNonce(), "url": url}
		change(h)
		return h
	}
	signed := func(input string) []byte { return sign(t, a.key, input) }
	with := func(change func(header)) func() []byte {
		return func() []byte { return message(t, a.key, head(change), order) }
	}
	weak := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	p521 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	members := func(change func(map[string]any)) func() []byte {
		return func() []byte {
			m := map[string]any{}
			if err := json.Unmarshal(message(t, a.key, head(func(header) {}), order), &m); err != nil {
				t.Fatal(err)
			}
			change(m)
			return must[[]byte](t)(json.Marshal(m))
		}
	}
	used := e.takeNonce()
	a.env.post(url, message(t, a.key, header{"alg": "ES256", "kid": a.kid, "nonce": used, "url": url}, order)).want(201)
	deep := strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)
	for name, c := range map[string]struct {
		body   func() []byte
		status int
		kind   string
	}{
		"nonce used before":         {with(func(h header) { h["nonce"] = used }), 400, "badNonce"},
		"nonce made up":             {with(func(h header) { h["nonce"] = strings.Repeat("A", 32) }), 400, "badNonce"},
		"nonce absent":              {with(func(h header) { delete(h, "nonce") }), 400, "badNonce"},
		"nonce of another form":     {with(func(h header) { h["nonce"] = "!" }), 400, "badNonce"},
		"nonce is a number":         {with(func(h header) { h["nonce"] = 7 }), 400, "malformed"},
		"another URL":               {with(func(h header) { h["url"] = e.url("/new-account") }), 403, "unauthorized"},
		"URL of http":               {with(func(h header) { h["url"] = strings.Replace(url, "https", "http", 1) }), 403, "unauthorized"},
		"URL absent":                {with(func(h header) { delete(h, "url") }), 403, "unauthorized"},
		"kid of another":            {with(func(h header) { h["kid"] = other.kid }), 400, "malformed"},
		"kid of nobody":             {with(func(h header) { h["kid"] = e.url("/account/999") }), 400, "accountDoesNotExist"},
		"kid with zeros":            {with(func(h header) { h["kid"] = strings.Replace(a.kid, "/account/", "/account/0", 1) }), 400, "accountDoesNotExist"},
		"kid at another host":       {with(func(h header) { h["kid"] = "https://evil.example/acme/account/1" }), 400, "accountDoesNotExist"},
		"kid is no string":          {with(func(h header) { h["kid"] = []string{a.kid} }), 400, "malformed"},
		"jwk where kid belongs":     {with(func(h header) { delete(h, "kid"); h["jwk"] = jwk(a.key) }), 400, "malformed"},
		"jwk and kid":               {with(func(h header) { h["jwk"] = jwk(a.key) }), 400, "malformed"},
		"neither jwk nor kid":       {with(func(h header) { delete(h, "kid") }), 400, "malformed"},
		"alg none":                  {with(func(h header) { h["alg"] = "none" }), 400, "badSignatureAlgorithm"},
		"alg HS256":                 {with(func(h header) { h["alg"] = "HS256" }), 400, "badSignatureAlgorithm"},
		"alg RS256 with an EC key":  {with(func(h header) { h["alg"] = "RS256" }), 400, "badSignatureAlgorithm"},
		"alg ES384 with P-256":      {with(func(h header) { h["alg"] = "ES384" }), 400, "badSignatureAlgorithm"},
		"alg absent":                {with(func(h header) { delete(h, "alg") }), 400, "badSignatureAlgorithm"},
		"crit":                      {with(func(h header) { h["crit"] = []string{"exp"}; h["exp"] = 1 }), 400, "malformed"},
		"b64":                       {with(func(h header) { h["b64"] = false }), 400, "malformed"},
		"signature by another":      {func() []byte { return message(t, other.key, head(func(header) {}), order) }, 400, "malformed"},
		"signature empty":           {members(func(m map[string]any) { m["signature"] = "" }), 400, "malformed"},
		"signature in parts":        {members(func(m map[string]any) { m["signature"] = m["signature"].(string) + ".AAAA" }), 400, "malformed"},
		"payload changed":           {members(func(m map[string]any) { m["payload"] = b64([]byte(`{"identifiers":[]}`)) }), 400, "malformed"},
		"payload padded":            {members(func(m map[string]any) { m["payload"] = m["payload"].(string) + "=" }), 400, "malformed"},
		"payload with a line break": {members(func(m map[string]any) { m["payload"] = m["payload"].(string) + "\n" }), 400, "malformed"},
		"payload absent":            {members(func(m map[string]any) { delete(m, "payload") }), 400, "malformed"},
		"payload a number":          {members(func(m map[string]any) { m["payload"] = 1 }), 400, "malformed"},
		"unprotected header":        {members(func(m map[string]any) { m["header"] = map[string]any{"kid": a.kid} }), 400, "malformed"},
		"general serialization":     {members(func(m map[string]any) { m["signatures"] = []any{} }), 400, "malformed"},
		"another member":            {members(func(m map[string]any) { m["extra"] = 1 }), 400, "malformed"},
		"a member twice": {func() []byte {
			m := message(t, a.key, head(func(header) {}), order)
			return append([]byte(`{"payload":"",`), m[1:]...)
		}, 400, "malformed"},
		"a header field twice": {func() []byte {
			return raw(t, signed, fmt.Sprintf(`{"alg":"none","alg":"ES256","kid":%q,"nonce":%q,"url":%q}`, a.kid, e.takeNonce(), url), text)
		}, 400, "malformed"},
		"a header field twice, escaped": {func() []byte {
			return raw(t, signed, fmt.Sprintf(`{"alg":"ES256","\u0061lg":"none","kid":%q,"nonce":%q,"url":%q}`, a.kid, e.takeNonce(), url), text)
		}, 400, "malformed"},
		"a payload field twice": {func() []byte {
			return message(t, a.key, head(func(header) {}), `{"identifiers":[],"identifiers":[{"type":"permanent-identifier","value":"lamp-1"}]}`)
		}, 400, "malformed"},
		"nested too deep":          {func() []byte { return message(t, a.key, head(func(header) {}), deep) }, 400, "malformed"},
		"an array":                 {func() []byte { return []byte("[]") }, 400, "malformed"},
		"nothing":                  {func() []byte { return nil }, 400, "malformed"},
		"not UTF-8":                {func() []byte { return []byte("{\"protected\":\"\xff\"}") }, 400, "malformed"},
		"trailing text":            {func() []byte { return append(message(t, a.key, head(func(header) {}), order), "x"...) }, 400, "malformed"},
		"payload of trailing text": {func() []byte { return message(t, a.key, head(func(header) {}), text+"{}") }, 400, "malformed"},
		"payload of bad JSON":      {func() []byte { return message(t, a.key, head(func(header) {}), `{"identifiers":01}`) }, 400, "malformed"},
		"a megabyte":               {func() []byte { return message(t, a.key, head(func(header) {}), strings.Repeat(" ", 1<<20)+text) }, 413, "malformed"},
		"compact serialization":    {func() []byte { return []byte("e30.e30.AAAA") }, 400, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := a.env.post(url, c.body())
			p := r.problem(c.status, c.kind)
			if r.header.Get("Replay-Nonce") == "" || !strings.Contains(r.header.Get("Link"), `rel="index"`) {
				t.Errorf("headers %v", r.header)
			}
			if c.kind == "badSignatureAlgorithm" && len(p.Algorithms) != 4 {
				t.Errorf("algorithms %v", p.Algorithms)
			}
		})
	}

	account := e.url("/new-account")
	key := func(k json.RawMessage, alg string) []byte {
		return message(t, a.key, header{"alg": alg, "jwk": k, "nonce": e.takeNonce(), "url": account}, map[string]any{})
	}
	secret := json.RawMessage(fmt.Sprintf(`{"kty":"oct","k":%q}`, b64(make([]byte, 32))))
	private := bytes.Replace(jwk(a.key), []byte("{"), []byte(fmt.Sprintf(`{"d":%q,`, b64(make([]byte, 32)))), 1)
	off := json.RawMessage(fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q}`, b64(make([]byte, 32)), b64(bytes.Repeat([]byte{1}, 32))))
	for name, c := range map[string]struct {
		body []byte
		kind string
	}{
		"kid where jwk belongs":   {message(t, a.key, header{"alg": "ES256", "kid": a.kid, "nonce": e.takeNonce(), "url": account}, map[string]any{}), "malformed"},
		"a secret as the key":     {key(secret, "HS256"), "badPublicKey"},
		"a private key":           {key(private, "ES256"), "badPublicKey"},
		"a point off the curve":   {key(off, "ES256"), "badPublicKey"},
		"RSA of 1024 bits":        {key(jwk(weak), "RS256"), "badPublicKey"},
		"P-521":                   {key(jwk(p521), "ES512"), "badPublicKey"},
		"a key of no kind":        {key(json.RawMessage(`{"kty":"XX"}`), "ES256"), "badPublicKey"},
		"a key that is a string":  {key(json.RawMessage(`"x"`), "ES256"), "malformed"},
		"a key with a twin field": {raw(t, signed, fmt.Sprintf(`{"alg":"ES256","jwk":{"kty":"EC","kty":"RSA"},"nonce":%q,"url":%q}`, e.takeNonce(), account), "{}"), "malformed"},
	} {
		t.Run(name, func(t *testing.T) { a.env.post(account, c.body).problem(400, c.kind) })
	}
	if n := e.recorded("lamp-1"); n != 0 {
		t.Errorf("%d certificates came of it", n)
	}
}

// What is wrong with HTTP itself.
func TestHTTP(t *testing.T) {
	e := newEnv(t)
	send := func(method, path, media string) *answer {
		r := must[*http.Request](t)(http.NewRequest(method, e.url(path), strings.NewReader("{}")))
		r.Header.Set("Content-Type", media)
		return e.do(r)
	}
	for _, c := range []struct {
		method, path, media string
		status              int
		allow               string
	}{
		{"GET", "/new-order", "", 405, "POST"},
		{"PUT", "/account/1", "application/jose+json", 405, "POST"},
		{"POST", "/directory", "application/jose+json", 405, "GET, HEAD"},
		{"DELETE", "/new-nonce", "", 405, "GET, HEAD"},
		{"POST", "/renewal-info/AA.AA", "application/jose+json", 405, "GET, HEAD"},
		{"POST", "/new-order", "application/json", 415, ""},
		{"POST", "/new-order", "", 415, ""},
		{"POST", "/order/1/", "application/jose+json", 404, ""},
		{"GET", "/", "", 404, ""},
		{"GET", "/directory/", "", 404, ""},
	} {
		r := send(c.method, c.path, c.media)
		r.problem(c.status, "malformed")
		if got := r.header.Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
		}
	}
	head := must[*http.Request](t)(http.NewRequest(http.MethodHead, e.url("/new-nonce"), nil))
	for _, r := range []*answer{e.do(head).want(200), e.get("/new-nonce").want(204)} {
		if n := r.header.Get("Replay-Nonce"); len(n) != 32 || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("headers %v", r.header)
		}
	}
}

func TestBadOrders(t *testing.T) {
	e := newEnv(t, func(o *acme.Options) {
		o.Validators = map[string]acme.Validator{"http-01": met{}, "dns-01": met{}, "tls-alpn-01": met{}}
	})
	a := e.device("gw-1")
	for name, c := range map[string]struct {
		payload any
		status  int
		kind    string
		subs    int
	}{
		"no identifiers":                 {map[string]any{}, 400, "malformed", 0},
		"an empty list":                  {map[string]any{"identifiers": []int{}}, 400, "malformed", 0},
		"identifiers no list":            {map[string]any{"identifiers": "gw-1"}, 400, "malformed", 0},
		"an identifier no object":        {map[string]any{"identifiers": []string{"gw-1"}}, 400, "malformed", 0},
		"a value no string":              {map[string]any{"identifiers": []any{map[string]any{"type": "dns", "value": 1}}}, 400, "malformed", 0},
		"too many":                       {map[string]any{"identifiers": make([]acme.Identifier, 33)}, 400, "malformed", 0},
		"unknown type":                   {ids(acme.Identifier{Type: "email", Value: "a@b"}), 400, "unsupportedIdentifier", 1},
		"no host name":                   {ids(dns("a_b")), 400, "malformed", 1},
		"a host with a dot at its end":   {ids(dns("gw-1.local.")), 400, "malformed", 1},
		"an address as a host":           {ids(dns("10.0.0.1")), 400, "malformed", 1},
		"a wildcard within":              {ids(dns("a.*.local")), 400, "malformed", 1},
		"an address in another form":     {ids(ip("010.0.0.1")), 400, "malformed", 1},
		"an IPv6 address in long form":   {ids(ip("fe80:0:0:0:0:0:0:1")), 400, "malformed", 1},
		"an IPv4 address in IPv6":        {ids(ip("::ffff:10.0.0.1")), 400, "malformed", 1},
		"an identifier with two slashes": {ids(pid("gw-1/1.2/3")), 400, "malformed", 1},
		"an assigner that is no OID":     {ids(pid("gw-1/1")), 400, "malformed", 1},
		"an assigner with a zero first":  {ids(pid("gw-1/1.02")), 400, "malformed", 1},
		"an assigner out of range":       {ids(pid("gw-1/1.40")), 400, "malformed", 1},
		"an empty identifier":            {ids(pid("")), 400, "malformed", 1},
		"a module without a type":        {ids(acme.Identifier{Type: "hardware-module", Value: "gw-1"}), 400, "malformed", 1},
		"a long value":                   {ids(pid(strings.Repeat("x", 300))), 400, "malformed", 1},
		"another device":                 {ids(pid("gw-2")), 403, "rejectedIdentifier", 1},
		"one of two of another device":   {ids(pid("gw-1"), pid("gw-2")), 403, "rejectedIdentifier", 1},
		"two of another device":          {ids(dns("gw-2.local"), pid("gw-2"), pid("gw-1")), 403, "rejectedIdentifier", 2},
		"a name nobody may have":         {ids(dns("www.example.com")), 403, "rejectedIdentifier", 1},
		"an address nobody may have":     {ids(ip("127.0.0.1")), 403, "rejectedIdentifier", 1},
		"a wildcard not allowed":         {ids(dns("*.gw-1.local")), 403, "rejectedIdentifier", 1},
		"a profile that is none":         {order(map[string]any{"profile": "nonsense"}, pid("gw-1")), 400, "invalidProfile", 0},
		"a profile of no level":          {order(map[string]any{"profile": "remediation"}, pid("gw-1")), 400, "invalidProfile", 0},
		"a profile without addresses":    {order(map[string]any{"profile": "device"}, ip("10.0.0.1")), 400, "invalidProfile", 0},
		"a profile no string":            {order(map[string]any{"profile": 7}, pid("gw-1")), 400, "malformed", 0},
		"notAfter no time":               {order(map[string]any{"notAfter": "tomorrow"}, pid("gw-1")), 400, "malformed", 0},
		"notAfter too late":              {order(map[string]any{"notAfter": e.now().AddDate(1, 0, 0)}, pid("gw-1")), 400, "malformed", 0},
		"notAfter passed":                {order(map[string]any{"notAfter": e.now().AddDate(-1, 0, 0)}, pid("gw-1")), 400, "malformed", 0},
		"notBefore in the future":        {order(map[string]any{"notBefore": e.now().AddDate(0, 0, 1)}, pid("gw-1")), 400, "malformed", 0},
		"notBefore too early":            {order(map[string]any{"notBefore": e.now().AddDate(0, 0, -1)}, pid("gw-1")), 400, "malformed", 0},
		"replaces nonsense":              {order(map[string]any{"replaces": "x"}, pid("gw-1")), 400, "malformed", 0},
		"replaces another CA's":          {order(map[string]any{"replaces": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"}, pid("gw-1")), 404, "malformed", 0},
		"POST-as-GET":                    {nil, 400, "malformed", 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := a.post("/new-order", c.payload).problem(c.status, c.kind)
			if len(p.Subproblems) != c.subs {
				t.Errorf("%d subproblems, want %d: %+v", len(p.Subproblems), c.subs, p)
			}
			for _, s := range p.Subproblems {
				if s.Identifier == nil {
					t.Errorf("a subproblem of nothing: %+v", s)
				}
			}
		})
	}
	o := a.ordered(pid("gw-1"), pid("gw-1"))
	if len(o.Identifiers) != 1 || len(o.Authorizations) != 1 {
		t.Errorf("the same twice: %+v", o)
	}
}

func ids(list ...acme.Identifier) map[string]any { return order(nil, list...) }

func order(more map[string]any, list ...acme.Identifier) map[string]any {
	all := map[string]any{"identifiers": list}
	for k, v := range more {
		all[k] = v
	}
	return all
}

// Resources of others are like those that are not there.
func TestOthers(t *testing.T) {
	e := newEnv(t)
	a, b := e.device("lamp-1"), e.device("lamp-2")
	o := a.ordered(pid("lamp-1"))
	done := readOrder(a.finalize(o, csr(t, newKey(t), "", pid("lamp-1"))).want(200))
	missing := func(url string, payload any) problemDoc {
		t.Helper()
		return b.post(url, payload).problem(404, "malformed")
	}
	for name, c := range map[string]struct {
		url, none string
		payload   any
	}{
		"order":         {o.url, e.url("/order/999"), nil},
		"finalize":      {o.Finalize, e.url("/order/999/finalize"), map[string]any{"csr": b64(csr(t, newKey(t), ""))}},
		"authorization": {o.Authorizations[0], e.url("/authorization/999"), nil},
		"challenge":     {strings.Replace(o.Authorizations[0], "authorization", "challenge", 1) + "/http-01", e.url("/challenge/999/http-01"), map[string]any{}},
		"certificate":   {done.Certificate, e.url("/certificate/0100000000000000000000000000000000000000"), nil},
		"account":       {a.kid, e.url("/account/999"), nil},
		"orders":        {a.kid + "/orders", e.url("/account/999/orders"), nil},
	} {
		theirs, none := missing(c.url, c.payload), missing(c.none, c.payload)
		if theirs.Detail != none.Detail {
			t.Errorf("%s: another's says %q, one that is not there %q", name, theirs.Detail, none.Detail)
		}
	}
	for _, bad := range []string{"/order/0", "/order/01", "/order/-1", "/order/x", "/order/99999999999999999999", "/certificate/zz", done.Certificate + "/1", done.Certificate + "/0"} {
		a.post(bad, nil).problem(404, "malformed")
	}
}
