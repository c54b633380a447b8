package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// algorithms are the signatures that account keys may make.
var algorithms = []string{"ES256", "ES384", "RS256", "EdDSA"}

// jws is a signed message in the flattened JSON serialization (RFC 7515 §7.2.2), its
// signature not yet verified.
//
//	{ "protected": base64url, "payload": base64url, "signature": base64url }
//
// The protected header has "alg", "url", "nonce", and either "jwk" or "kid" (RFC 8555 §6.2).
type jws struct {
	input                string // what is signed: "protected.payload", as sent
	signature            []byte
	alg, url, nonce, kid string
	jwk                  json.RawMessage
	body                 []byte // the payload
}

// parseJWS reads one message, strictly.
func parseJWS(data []byte) (*jws, error) {
	o, err := parseObject(data)
	if err != nil {
		return nil, problem(malformed, "the JWS cannot be read: %w", err)
	}
	for _, name := range o.names {
		switch name {
		case "protected", "payload", "signature":
		case "header":
			return nil, problem(malformed, "the JWS has an unprotected header, and must not (RFC 8555 section 6.2)")
		case "signatures":
			return nil, problem(malformed, "the JWS is in the general serialization: use the flattened one, with one signature (RFC 8555 section 6.2)")
		default:
			return nil, problem(malformed, "the JWS has a member %.40q, which is none of protected, payload and signature", name)
		}
	}
	var m jws
	var header []byte
	for _, f := range []struct {
		name string
		to   *[]byte
	}{{"protected", &header}, {"payload", &m.body}, {"signature", &m.signature}} {
		if *f.to, err = o.octets(f.name); err == nil && !o.has(f.name) {
			err = fmt.Errorf("%q is missing", f.name)
		}
		if err != nil {
			return nil, problem(malformed, "the JWS cannot be read: %w", err)
		}
	}
	protected, _ := o.text("protected") // which octets has read
	payload, _ := o.text("payload")
	m.input = protected + "." + payload
	err = m.parseHeader(header)
	if p, ok := errors.AsType[*Problem](err); ok {
		return nil, p
	}
	if err != nil {
		return nil, problem(malformed, "the JWS cannot be read: %w", err)
	}
	return &m, nil
}

func (m *jws) parseHeader(raw []byte) error {
	h, err := parseObject(raw)
	if err != nil {
		return fmt.Errorf("its protected header: %w", err)
	}
	switch {
	case h.has("crit"):
		return errors.New("its protected header demands extensions (crit), and none is known here")
	case h.has("b64"):
		return errors.New("its payload must be base64url: leave b64 out of the header")
	}
	for _, f := range []struct {
		name string
		to   *string
	}{{"alg", &m.alg}, {"url", &m.url}, {"nonce", &m.nonce}, {"kid", &m.kid}} {
		if *f.to, err = h.text(f.name); err != nil {
			return fmt.Errorf("its protected header: %w", err)
		}
	}
	if m.jwk = h.raw("jwk"); m.jwk != nil && m.jwk[0] != '{' {
		return errors.New(`its protected header: "jwk" is not an object`)
	}
	if m.jwk != nil && h.has("kid") {
		return errors.New(`its protected header has both "jwk" and "kid": use one`)
	}
	return nil
}

// publicKey is an account's key: of a kind that can make one of the algorithms.
type publicKey struct {
	key        crypto.PublicKey
	alg        string   // the one that goes with it
	spki       []byte   // DER
	thumbprint [32]byte // RFC 7638
}

// parseJWK reads a public key (RFC 7517) and vets it.
func parseJWK(raw json.RawMessage) (*publicKey, error) {
	o, err := parseObject(raw)
	if err != nil {
		return nil, problem(malformed, "the key cannot be read: %w", err)
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if o.has(private) {
			return nil, problem("badPublicKey", "the key is a private one, or a secret: send the public key, and make a new pair")
		}
	}
	if o.has("x5u") || o.has("x5c") {
		return nil, problem("badPublicKey", "the key comes with certificates: send the key alone")
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(raw); err != nil {
		return nil, problem("badPublicKey", "the key cannot be used: give an EC key on P-256 or P-384, an Ed25519 key, or an RSA key: %w", err)
	}
	return newPublicKey(k.Key)
}

// newPublicKey vets a key for accounts.
func newPublicKey(key crypto.PublicKey) (*publicKey, error) {
	if pub, ok := key.(*rsa.PublicKey); ok && pub.N.BitLen() > maxRSA {
		return nil, problem("badPublicKey", "an RSA key of %d bits: use 2048 to %d", pub.N.BitLen(), maxRSA)
	}
	k := &publicKey{key: key, alg: algorithmOf(key)}
	if k.alg == "" {
		return nil, problem("badPublicKey", "accounts have EC keys on P-256 or P-384, Ed25519 keys, or RSA keys")
	}
	if _, err := policy.KeyAlgorithm(key); err != nil {
		return nil, problem("badPublicKey", "this key is unfit: %w", err)
	}
	var err error
	if k.spki, err = x509.MarshalPKIXPublicKey(key); err != nil {
		return nil, problem("badPublicKey", "this key is unfit: %w", err)
	}
	sum, err := (&jose.JSONWebKey{Key: key}).Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, problem("badPublicKey", "this key is unfit: %w", err)
	}
	k.thumbprint = [sha256.Size]byte(sum)
	return k, nil
}

// algorithmOf is the algorithm that goes with a key, "" if none does.
func algorithmOf(key crypto.PublicKey) string {
	switch pub := key.(type) {
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return "ES256"
		case elliptic.P384():
			return "ES384"
		}
	case ed25519.PublicKey:
		return "EdDSA"
	case *rsa.PublicKey:
		return "RS256"
	}
	return ""
}

// accountKey is the key of an account, which was vetted when it came.
func accountKey(a *ca.Account) (*publicKey, error) {
	pub, err := x509.ParsePKIXPublicKey(a.Key)
	return &publicKey{pub, algorithmOf(pub), a.Key, a.Thumbprint}, err
}

// maxRSA is the largest RSA key of an account, in bits: what a message costs us grows with it.
const maxRSA = 4096

// checkAlgorithm refuses a message whose algorithm is not the one that goes with the key.
func (m *jws) checkAlgorithm(k *publicKey) error {
	if !slices.Contains(algorithms, m.alg) {
		p := problem(badAlgorithm, "the algorithm %.40q is not accepted here", m.alg)
		p.Algorithms = algorithms
		return p
	}
	if m.alg != k.alg {
		p := problem(badAlgorithm, "the algorithm %s does not go with the key, which signs with %s", m.alg, k.alg)
		p.Algorithms = algorithms
		return p
	}
	return nil
}

// verify checks the signature (RFC 7515 §5.2). Each kind of key has one algorithm, and each algorithm one form of
// signature. What was parsed is not parsed again: every message of every order comes by here.
func (m *jws) verify(k *publicKey) error {
	if err := m.checkAlgorithm(k); err != nil {
		return err
	}
	if !signed(k.key, m.input, m.signature) {
		return problem(malformed, "the signature does not verify")
	}
	return nil
}

func signed(key crypto.PublicKey, input string, signature []byte) bool {
	switch pub := key.(type) {
	case *ecdsa.PublicKey:
		size, hash := 32, crypto.SHA256
		if pub.Curve == elliptic.P384() {
			size, hash = 48, crypto.SHA384
		}
		if len(signature) != 2*size { // R and S (RFC 7518 §3.4)
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
		return ecdsa.Verify(pub, digest(hash, input), r, s)
	case ed25519.PublicKey:
		return ed25519.Verify(pub, []byte(input), signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest(crypto.SHA256, input), signature) == nil
	}
	return false
}

func digest(hash crypto.Hash, input string) []byte {
	h := hash.New()
	io.WriteString(h, input)
	return h.Sum(nil)
}

// verifyMAC checks the signature of an external account binding, which is a MAC by HS256.
func (m *jws) verifyMAC(key []byte) bool {
	mac := hmac.New(sha256.New, key)
	io.WriteString(mac, m.input)
	return hmac.Equal(mac.Sum(nil), m.signature)
}
