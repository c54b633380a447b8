package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

var base64url = base64.RawURLEncoding

// identifier is what an ACME order names.
type identifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// acmeServer is a server of ACME, and how its clients meet what it asks.
type acmeServer struct {
	target
	directory string // its path
	// reference and mac are of the credential that accounts are bound to; none if anybody may come.
	reference string
	mac       []byte
	// pause is how long the server is left alone with what it does behind an answer, before it is asked for it.
	pause time.Duration
	// apart, if set, keeps the making of orders and looks at authorizations from meeting in the server: pebble locks up there.
	apart *sync.RWMutex
}

// acmeAccount is one client of a server, with the connection that it comes by.
type acmeAccount struct {
	server     *acmeServer
	key        *ecdsa.PrivateKey
	jwk        []byte
	thumbprint string
	kid, nonce string
	newOrder   string // URL
	trips      int    // requests sent
}

// acmeOrder is what one order needs, made before the clock starts.
type acmeOrder struct {
	identifier
	spki []byte // the key to be certified
	csr  []byte // the payload of finalize
	// met is the payload that answers a challenge, by its key authorization, and sees to it that
	// the challenge is met.
	challenge string // its type
	met       func(token, keyAuthorization string) ([]byte, error)
}

// register makes an account on a connection of its own.
func (s *acmeServer) register(ctx context.Context) (*acmeAccount, error) {
	a := &acmeAccount{server: s}
	var err error
	if a.key, err = newKey(); err != nil {
		return nil, err
	}
	point, err := a.key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	a.jwk = fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, base64url.EncodeToString(point[1:33]), base64url.EncodeToString(point[33:]))
	digest := sha256.Sum256(a.jwk) // RFC 7638: these members in this order
	a.thumbprint = base64url.EncodeToString(digest[:])
	c := newClient(s.target, nil, false)
	defer c.close()
	var directory struct{ NewNonce, NewAccount, NewOrder string }
	if _, err := a.send(ctx, c, http.MethodGet, s.directory, nil, &directory); err != nil {
		return nil, err
	}
	a.newOrder = directory.NewOrder
	if _, err := a.send(ctx, c, http.MethodHead, a.path(directory.NewNonce), nil, nil); err != nil {
		return nil, err
	}
	account := map[string]any{"termsOfServiceAgreed": true}
	if s.reference != "" {
		header := fmt.Appendf(nil, `{"alg":"HS256","kid":%q,"url":%q}`, s.reference, directory.NewAccount)
		input := base64url.EncodeToString(header) + "." + base64url.EncodeToString(a.jwk)
		mac := hmac.New(sha256.New, s.mac)
		mac.Write([]byte(input))
		account["externalAccountBinding"] = flattened(input, mac.Sum(nil))
	}
	payload, err := json.Marshal(account)
	if err != nil {
		return nil, err
	}
	header, err := a.post(ctx, c, directory.NewAccount, payload, nil)
	if err != nil {
		return nil, fmt.Errorf("new account: %w", err)
	}
	if a.kid = header.Get("Location"); a.kid == "" {
		return nil, errors.New("the new account has no Location")
	}
	return a, nil
}

// path is a URL without the host, which is always the server's.
func (a *acmeAccount) path(url string) string {
	return strings.TrimPrefix(url, "https://"+a.server.addr)
}

// flattened is a JWS of "protected.payload" and its signature.
func flattened(input string, signature []byte) map[string]string {
	protected, payload, _ := strings.Cut(input, ".")
	return map[string]string{"protected": protected, "payload": payload, "signature": base64url.EncodeToString(signature)}
}

// post sends a payload, signed with ES256; nil is POST-as-GET. The answer is read into to, unless that is nil.
func (a *acmeAccount) post(ctx context.Context, c *client, url string, payload []byte, to any) (http.Header, error) {
	who := fmt.Sprintf(`"kid":%q`, a.kid)
	if a.kid == "" {
		who = `"jwk":` + string(a.jwk)
	}
	header := fmt.Appendf(nil, `{"alg":"ES256",%s,"nonce":%q,"url":%q}`, who, a.nonce, url)
	input := base64url.EncodeToString(header) + "." + base64url.EncodeToString(payload)
	digest := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, a.key, digest[:])
	if err != nil {
		return nil, err
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	body, err := json.Marshal(flattened(input, signature[:]))
	if err != nil {
		return nil, err
	}
	return a.send(ctx, c, http.MethodPost, a.path(url), body, to)
}

// send sends one request and keeps the nonce that comes back.
func (a *acmeAccount) send(ctx context.Context, c *client, method, path string, body []byte, to any) (http.Header, error) {
	head := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n", method, path, a.server.addr)
	if body != nil {
		head = fmt.Appendf(head, "Content-Type: application/jose+json\r\nContent-Length: %d\r\n", len(body))
	}
	a.trips++
	resp, answer, err := c.roundTrip(ctx, method, append(append(head, "\r\n"...), body...))
	if err != nil {
		return nil, err
	}
	if nonce := resp.Header.Get("Replay-Nonce"); nonce != "" {
		a.nonce = nonce
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: the server answered %s: %.500s", method, path, resp.Status, answer)
	}
	switch to := to.(type) {
	case nil:
	case *[]byte:
		*to = answer
	default:
		err = json.Unmarshal(answer, to)
	}
	return resp.Header, err
}

// polls are how often what is not ready yet is asked for again.
const polls = 2000

// wait is a pause before the nth look at something that the server has yet to do.
func (a *acmeAccount) wait(ctx context.Context, n int, what, status string) error {
	if status != "pending" && status != "processing" || n >= polls {
		return fmt.Errorf("the %s is %s", what, status)
	}
	select {
	case <-ctx.Done():
	case <-time.After(a.server.pause):
	}
	return ctx.Err()
}

// order gets one certificate: new order, each authorization, finalize, download.
func (a *acmeAccount) order(ctx context.Context, c *client, o *acmeOrder) error {
	var order struct {
		Status, Finalize, Certificate string
		Authorizations                []string
	}
	payload, err := json.Marshal(map[string]any{"identifiers": []identifier{o.identifier}})
	if err != nil {
		return err
	}
	header, err := a.ask(ctx, c, payload, &order)
	if err != nil {
		return err
	}
	at := header.Get("Location")
	for _, url := range order.Authorizations {
		if err := a.authorize(ctx, c, url, o); err != nil {
			return err
		}
	}
	if _, err = a.post(ctx, c, order.Finalize, o.csr, &order); err != nil {
		return err
	}
	for n := 0; order.Status != "valid"; n++ {
		if err := a.wait(ctx, n, "order", order.Status); err != nil {
			return err
		}
		if _, err := a.post(ctx, c, at, nil, &order); err != nil {
			return err
		}
	}
	var chain []byte
	if _, err := a.post(ctx, c, order.Certificate, nil, &chain); err != nil {
		return err
	}
	if block, _ := pem.Decode(chain); block == nil || !bytes.Contains(block.Bytes, o.spki) {
		return fmt.Errorf("what came is no certificate for the key: %.200s", chain)
	}
	return nil
}

// ask makes an order.
func (a *acmeAccount) ask(ctx context.Context, c *client, payload []byte, to any) (http.Header, error) {
	if m := a.server.apart; m != nil {
		m.Lock()
		defer m.Unlock()
	}
	return a.post(ctx, c, a.newOrder, payload, to)
}

// look fetches an authorization.
func (a *acmeAccount) look(ctx context.Context, c *client, url string, to any) error {
	if m := a.server.apart; m != nil {
		m.RLock()
		defer m.RUnlock()
	}
	_, err := a.post(ctx, c, url, nil, to)
	return err
}

// authorize looks at an authorization, and meets a challenge of it unless it is valid.
func (a *acmeAccount) authorize(ctx context.Context, c *client, url string, o *acmeOrder) error {
	var is struct {
		Status     string
		Challenges []struct{ Type, URL, Token, Status string }
	}
	if err := a.look(ctx, c, url, &is); err != nil || is.Status == "valid" {
		return err
	}
	for _, challenge := range is.Challenges {
		if challenge.Type != o.challenge {
			continue
		}
		payload, err := o.met(challenge.Token, challenge.Token+"."+a.thumbprint)
		if err != nil {
			return err
		}
		if _, err := a.post(ctx, c, challenge.URL, payload, &challenge); err != nil {
			return err
		}
		if challenge.Status == "valid" {
			return nil // and with it the authorization (RFC 8555 §7.1.6)
		}
		for n := 0; ; n++ {
			if err := a.wait(ctx, n, "authorization", is.Status); err != nil {
				return err
			}
			if err := a.look(ctx, c, url, &is); err != nil || is.Status == "valid" {
				return err
			}
		}
	}
	return fmt.Errorf("the authorization has no challenge %q: %+v", o.challenge, is)
}

// newAcmeOrder makes a key and the request for it.
func newAcmeOrder(id identifier, template *x509.CertificateRequest) (*acmeOrder, *ecdsa.PrivateKey, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, nil, err
	}
	return &acmeOrder{identifier: id, spki: spki, csr: fmt.Appendf(nil, `{"csr":%q}`, base64url.EncodeToString(csr))}, key, nil
}
