package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/crypto/acme"
)

// b64 is the base64url of JOSE (RFC 7515 §2).
var b64 = base64.RawURLEncoding

// jws is a JWS in Flattened JSON Serialization (RFC 7515 §7.2.2).
type jws struct {
	Protected string `json:"protected"`
	Payload   string `json:"payload"`
	Signature string `json:"signature"`
}

// jwk is a P-256 public key (RFC 7518 §6.2).
type jwk struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

// jwsHeader is a protected header of RFC 8555 §6.2: jwk or kid, never both.
type jwsHeader struct {
	Alg   string `json:"alg"`
	JWK   *jwk   `json:"jwk,omitempty"`
	KID   string `json:"kid,omitempty"`
	Nonce string `json:"nonce,omitempty"`
	URL   string `json:"url"`
}

var errCurve = errors.New("an account key is on P-256")

func publicJWK(key *ecdsa.PublicKey) (*jwk, error) {
	if key.Curve != elliptic.P256() {
		return nil, errCurve
	}
	point, err := key.Bytes() // 04, X, Y
	if err != nil {
		return nil, err
	}
	return &jwk{Crv: "P-256", Kty: "EC", X: b64.EncodeToString(point[1:33]), Y: b64.EncodeToString(point[33:])}, nil
}

// keyAuthorization is RFC 8555 §8.1.
func keyAuthorization(token string, key *ecdsa.PublicKey) (string, error) {
	if key.Curve != elliptic.P256() {
		return "", errCurve
	}
	thumbprint, err := acme.JWKThumbprint(key)
	if err != nil {
		return "", err
	}
	return token + "." + thumbprint, nil
}

// signJWS signs a payload with ES256 (RFC 7518 §3.4: R and S, 32 octets each).
func signJWS(h jwsHeader, payload []byte, key *ecdsa.PrivateKey) (*jws, error) {
	h.Alg = "ES256"
	return sealJWS(h, payload, func(input []byte) ([]byte, error) {
		sum := sha256.Sum256(input)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return nil, err
		}
		out := make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return out, nil
	})
}

// bindAccount is the external account binding of an account key (RFC 8555 §7.3.4).
func bindAccount(c *Credential, newAccount string, key *ecdsa.PublicKey) (*jws, error) {
	k, err := publicJWK(key)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	secret, err := bindingKey(c.Secret)
	if err != nil {
		return nil, err
	}
	return sealJWS(jwsHeader{Alg: "HS256", KID: c.Reference, URL: newAccount}, payload, func(input []byte) ([]byte, error) {
		mac := hmac.New(sha256.New, secret)
		mac.Write(input)
		return mac.Sum(nil), nil
	})
}

// bindingKey derives the key of the binding from a credential's secret, as deviceca does; it prints it as hmac_key.
func bindingKey(secret string) ([]byte, error) {
	return hkdf.Key(sha256.New, []byte(secret), nil, "deviceca acme eab", 32)
}

func sealJWS(h jwsHeader, payload []byte, sign func([]byte) ([]byte, error)) (*jws, error) {
	header, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	out := &jws{Protected: b64.EncodeToString(header), Payload: b64.EncodeToString(payload)}
	signature, err := sign(fmt.Appendf(nil, "%s.%s", out.Protected, out.Payload))
	if err != nil {
		return nil, err
	}
	out.Signature = b64.EncodeToString(signature)
	return out, nil
}
