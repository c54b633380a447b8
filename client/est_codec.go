package client

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/deviceca/deviceca/internal/cms"
)

// encodeBody is the body of an EST request: base64 in one line and a newline. RFC
// 8951 §3.1 allows any line length; peers differ in the ones they read, and all read this.
func encodeBody(der []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(nil, der), '\n')
}

// decodeBody reads an EST body: base64 with white space anywhere and with or
// without padding (RFC 8951 §3.1), one PEM block, or plain DER. Anything
// else, and a base64 text cut off in the middle of a quantum, is an error.
func decodeBody(body []byte) ([]byte, error) {
	if der, ok := plainDER(body); ok {
		return der, nil
	}
	if block, rest := pem.Decode(body); block != nil && len(bytes.TrimSpace(rest)) == 0 {
		return block.Bytes, nil
	}
	text := slices.DeleteFunc(slices.Clone(body), func(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' })
	if len(text) == 0 {
		return nil, errors.New("the body is empty")
	}
	encoding := base64.StdEncoding
	if len(text)%4 != 0 && text[len(text)-1] != '=' {
		encoding = base64.RawStdEncoding
	}
	der, err := encoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return nil, fmt.Errorf("the body is not base64: %w", err)
	}
	return der, nil
}

// plainDER recognises a SEQUENCE with a long length, as every certs-only message
// and none of its base64 forms starts: no base64 text holds an octet ≥ 0x80.
func plainDER(body []byte) ([]byte, bool) {
	return body, len(body) > 2 && body[0] == 0x30 && body[1] >= 0x80
}

// readCertsOnly reads the body of a cacerts or enrolment reply (RFC 7030
// §4.1.3, §4.2.3): a degenerate SignedData with at least one certificate, in DER and not looked into.
func readCertsOnly(body []byte) ([][]byte, error) {
	der, err := decodeBody(body)
	if err != nil {
		return nil, err
	}
	raw, err := cms.ParseCertsOnly(der)
	if err == nil && len(raw) == 0 {
		err = errors.New("the reply holds no certificate")
	}
	return raw, err
}

// parseCertsOnly is readCertsOnly with at most so many certificates, parsed and bounded.
func parseCertsOnly(body []byte, most int) ([]*x509.Certificate, error) {
	raw, err := readCertsOnly(body)
	if err != nil {
		return nil, err
	}
	return parseCertificates(raw, most)
}

// decodeCSRAttrs is decodeBody for csrattrs, whose DER is often too short for plainDER to know it.
func decodeCSRAttrs(body []byte) ([]byte, error) {
	der, err := decodeBody(body)
	if err != nil && body[0] == 0x30 && len(body) > 1 && int(body[1]) == len(body)-2 {
		return body, nil
	}
	return der, err
}
