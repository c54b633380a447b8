package acme

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// MaxBody is the largest message read, in octets: an attestation with its chain and an event log fits.
const MaxBody = 256 << 10

// exchange is one request on its way.
type exchange struct {
	*Server
	r    *http.Request
	w    http.ResponseWriter
	base string // "https://ca.example:8443/acme"
	now  time.Time
	from netip.Addr

	message *jws
	body    object      // the payload, unless it is empty
	asGet   bool        // POST-as-GET: the payload is empty (RFC 8555 §6.3)
	key     *publicKey  // that signed
	who     *ca.Account // whose key it is; nil with byJWK
	shown   bool        // it was shown that who sent this
	outcome string
	device  string // for the log
}

// reply is what a request is answered with.
type reply struct {
	status     int // 200 if zero
	body       any // as JSON, or
	raw        []byte
	media      string // of raw
	location   string
	links      []string         // further Link fields
	decision   *policy.Decision // of a certificate: told in fields of our own, as EST does
	retryAfter time.Duration
	nonce      bool   // with a nonce, which was counted already
	cache      string // Cache-Control; "" is no-store
}

// serve makes a handler: it finds the base, runs the operation, and sends its reply or its problem.
func (s *Server) serve(operation string, run func(*exchange) (*reply, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		x := &exchange{Server: s, r: r, w: w, now: s.Now(), outcome: "ok"}
		if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			x.from = peer.Addr()
		}
		var answer *reply
		err := x.findBase()
		if err == nil {
			answer, err = run(x)
		}
		if err != nil {
			answer = x.refused(operation, err)
		}
		x.send(answer)
		if s.Observe != nil {
			s.Observe(operation, x.outcome, time.Since(start))
		}
	}
}

// findBase finds the base of all URLs: the configured one, or https and the host that the request names, if that is
// a name of this server. Of any other nothing is repeated: the request went astray (RFC 9110 §7.4).
func (x *exchange) findBase() error {
	if x.URL != "" {
		x.base = strings.TrimSuffix(x.URL, "/") + Prefix
		return nil
	}
	name, port := splitHost(x.r.Host)
	if !slices.Contains(x.Hosts, name) || port != x.listenPort() {
		return problem(malformed, "the request is for the host %.100q, and this server has no such name: use a name and the port of its configuration (tls.names and listen.https, or acme.url behind a proxy)",
			x.r.Host).with(http.StatusMisdirectedRequest)
	}
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if port != httpsPort {
		name += ":" + port
	}
	x.base = "https://" + name + Prefix
	return nil
}

const httpsPort = "443" // that URLs need not name

// splitHost is the name in small letters, or the address without brackets, and the port of a Host field.
func splitHost(host string) (name, port string) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), httpsPort
	}
	name = strings.ToLower(name)
	if addr, err := netip.ParseAddr(name); err == nil {
		name = addr.String()
	}
	return name, port
}

// listenPort is the port that the connection came to.
func (x *exchange) listenPort() string {
	if local, ok := x.ctx().Value(http.LocalAddrContextKey).(net.Addr); ok {
		_, port, _ := net.SplitHostPort(local.String())
		return port
	}
	return ""
}

func (x *exchange) wrongMethod() (*reply, error) {
	allow := http.MethodPost
	path := strings.TrimPrefix(x.r.URL.Path, Prefix)
	for _, rt := range x.table() {
		if first, _, _ := strings.Cut(rt.path, "{"); rt.get != nil && strings.HasPrefix(path, first) {
			allow = "GET, HEAD"
		}
	}
	x.w.Header().Set("Allow", allow)
	return nil, problem(malformed, "the method here is %s (resources are fetched by POST-as-GET, RFC 8555 section 6.3)", allow).with(http.StatusMethodNotAllowed)
}

// keyRule says how the JWS names its key (RFC 8555 §6.2).
type keyRule int

const (
	byKid keyRule = iota
	byJWK
	byEither
)

// read gets the message of a POST and finds out who sent it. The cheap checks come first; the
// nonce is redeemed before the signature is looked at, so that a message costs one verification.
func (x *exchange) read(rule keyRule) error {
	data, err := x.readBody()
	if err != nil {
		return err
	}
	m, err := parseJWS(data)
	if err != nil {
		return err
	}
	x.message = m
	if want := strings.TrimSuffix(x.base, Prefix) + x.r.URL.RequestURI(); m.url != want {
		return problem(unauthorized, "the JWS is for the URL %.200q, and was sent to %.200q", m.url, want)
	}
	switch {
	case rule == byKid && m.jwk != nil:
		return problem(malformed, `the JWS has "jwk" where "kid" belongs: name the account by its URL`)
	case rule == byJWK && m.kid != "":
		return problem(malformed, `the JWS has "kid" where "jwk" belongs`)
	case m.jwk == nil && m.kid == "":
		return problem(malformed, `the JWS names no key: put "kid" or "jwk" into its protected header`)
	}
	if m.kid != "" {
		err = x.findAccount()
	} else {
		x.key, err = parseJWK(m.jwk)
	}
	if err != nil {
		return err
	}
	if err := m.checkAlgorithm(x.key); err != nil {
		return err
	}
	if !x.Nonces.Redeem(m.nonce) {
		// The refusal must have a nonce (RFC 8555 §6.5): it is one of those that the address may have.
		if err := x.limits.nonce(x.from, x.now); err != nil {
			return err
		}
		return problem(badNonce, "the nonce is unknown, too old, or was used: try again with the one that comes with this answer")
	}
	if err := m.verify(x.key); err != nil {
		return err
	}
	if x.who != nil {
		x.shown = true
		if err := x.limits.request(x.who.ID, x.now); err != nil {
			return err
		}
	}
	if x.who != nil && x.who.Status != string(Valid) {
		return problem(unauthorized, "this account was deactivated").with(http.StatusUnauthorized) // RFC 8555 §7.3.6
	}
	if x.asGet = len(m.body) == 0; x.asGet {
		return nil
	}
	if x.body, err = parseObject(m.body); err != nil {
		return problem(malformed, "the payload cannot be read: %w", err)
	}
	return nil
}

// readBody gets the body, within bounds of size and time.
func (x *exchange) readBody() ([]byte, error) {
	given, _, _ := strings.Cut(x.r.Header.Get("Content-Type"), ";")
	switch {
	case !strings.EqualFold(strings.TrimSpace(given), "application/jose+json"):
		return nil, problem(malformed, "the request is not of Content-Type application/jose+json").with(http.StatusUnsupportedMediaType)
	case x.r.ContentLength > MaxBody:
		return nil, tooLarge()
	}
	control := http.NewResponseController(x.w)
	_ = control.SetReadDeadline(time.Now().Add(x.BodyTimeout)) // not supported below some middleware: then there is no limit
	data, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, MaxBody))
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case large:
		return nil, tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, problem(malformed, "the body took too long to arrive").with(http.StatusRequestTimeout)
	case err != nil:
		return nil, problem(malformed, "the body ended before it was complete: %w", err)
	}
	// Left standing, the deadline would cancel the request while the core works.
	_ = control.SetReadDeadline(time.Time{})
	return data, nil
}

func tooLarge() *Problem {
	return problem(malformed, "the message is larger than %d octets", MaxBody).with(http.StatusRequestEntityTooLarge)
}

// findAccount finds the account that "kid" names.
func (x *exchange) findAccount() error {
	unknown := func() error {
		return problem("accountDoesNotExist", "there is no account %.200q: kid is the URL in the Location field of the new account", x.message.kid)
	}
	name, ok := strings.CutPrefix(x.message.kid, x.base+"/account/")
	id, ok2 := parseID(name)
	if !ok || !ok2 {
		return unknown()
	}
	a, err := x.Ledger.Account(x.ctx(), id)
	if errors.Is(err, ca.ErrNoRecord) {
		return unknown()
	}
	if err != nil {
		return err
	}
	x.who, x.device = a, a.Device
	x.key, err = accountKey(a)
	return err
}

// parseID reads a number as URLs have it: without a sign and without zeros before it.
func parseID(s string) (int64, bool) {
	id, err := strconv.ParseInt(s, 10, 64)
	return id, err == nil && id > 0 && strconv.FormatInt(id, 10) == s
}

// pathID is the number in the path; notFound if it is none.
func (x *exchange) pathID() (int64, error) {
	id, ok := parseID(chi.URLParam(x.r, "id"))
	if !ok {
		return 0, notFound()
	}
	return id, nil
}

func (x *exchange) ctx() context.Context { return x.r.Context() }

func (x *exchange) url(parts ...any) string {
	b := []byte(x.base)
	for _, p := range parts {
		b = append(b, '/')
		switch p := p.(type) {
		case string:
			b = append(b, p...)
		case int64:
			b = strconv.AppendInt(b, p, 10)
		}
	}
	return string(b)
}

// onlyGet refuses a payload where a resource can only be fetched.
func (x *exchange) onlyGet() error {
	if !x.asGet {
		return problem(malformed, "this is fetched by POST-as-GET: send an empty payload (RFC 8555 section 6.3)")
	}
	return nil
}

// needBody refuses POST-as-GET where there is something to say.
func (x *exchange) needBody() error {
	if x.asGet {
		return problem(malformed, "the payload is empty, and must be a JSON object here")
	}
	return nil
}

// refused makes the answer of an error, and logs it.
func (x *exchange) refused(operation string, err error) *reply {
	p := refuse(err)
	x.outcome = p.Type
	level := slog.LevelInfo
	if p.Status == http.StatusInternalServerError {
		level = slog.LevelError
	}
	attrs := []slog.Attr{slog.String("protocol", "acme"), slog.String("operation", operation), slog.String("outcome", p.Type),
		slog.String("address", x.r.RemoteAddr), slog.String("error", visible(err.Error()))}
	if x.who != nil {
		attrs = append(attrs, slog.Int64("account", x.who.ID), slog.String("device", x.device))
	}
	x.Logger.LogAttrs(x.ctx(), level, "refused", attrs...)
	answer := &reply{status: p.Status, media: "application/problem+json", retryAfter: p.retryAfter, location: p.location, nonce: p.Type == badNonce}
	answer.raw, _ = json.Marshal(p.document()) // of strings and numbers
	if p.terms {
		answer.links = append(answer.links, link(x.Terms, "terms-of-service"))
	}
	return answer
}

func link(url, rel string) string { return "<" + url + `>;rel="` + rel + `"` }

func (x *exchange) send(answer *reply) {
	h := x.w.Header()
	if answer.raw == nil && answer.body != nil {
		raw, err := json.Marshal(answer.body)
		if err != nil {
			x.Logger.Error("an answer could not be encoded", "protocol", "acme", "err", err)
			http.Error(x.w, "internal error", http.StatusInternalServerError)
			return
		}
		answer.raw, answer.media = raw, "application/json"
	}
	if x.base != "" && !strings.HasSuffix(x.r.URL.Path, "/directory") {
		h.Add("Link", link(x.url("directory"), "index")) // RFC 8555 §7.1
	}
	for _, l := range answer.links {
		h.Add("Link", l)
	}
	if nonce := x.nextNonce(answer); nonce != "" {
		h.Set("Replay-Nonce", nonce)
	}
	if answer.decision != nil {
		tell(h, answer.decision)
	}
	if answer.location != "" {
		h.Set("Location", answer.location)
	}
	if answer.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((answer.retryAfter+time.Second-1)/time.Second)))
	}
	if answer.cache == "" {
		answer.cache = "no-store"
	}
	h.Set("Cache-Control", answer.cache)
	h.Set("X-Content-Type-Options", "nosniff")
	status := answer.status
	if status == 0 {
		status = http.StatusOK
	}
	if answer.raw != nil {
		h.Set("Content-Type", answer.media)
		h.Set("Content-Length", strconv.Itoa(len(answer.raw)))
	}
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		x.w.Write(answer.raw) // a client that went away is no fault of ours
	}
}

// nextNonce is the nonce that goes with an answer, "" for none. Refusals need not have one (RFC 8555 §6.5), so
// somebody who has shown no account that a credential vouches for gets no more of them than its address may have.
func (x *exchange) nextNonce(answer *reply) string {
	switch {
	case answer.nonce:
		return x.Nonces.Make(false)
	case x.r.Method != http.MethodPost:
		return ""
	}
	vouched := x.shown && x.who.Credential != ""
	if !vouched && answer.status >= http.StatusBadRequest && x.limits.nonce(x.from, x.now) != nil {
		return ""
	}
	return x.Nonces.Make(vouched)
}
