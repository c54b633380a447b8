package est

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/deviceca/deviceca/internal/der"
)

// Header fields in which a proxy that ends TLS hands the client's certificate
// on (RFC 9440 §2).
const (
	ClientCertHeader      = "Client-Cert"
	ClientCertChainHeader = "Client-Cert-Chain"
)

// Bounds of what a proxy hands on.
const (
	maxProxiedCert  = 16 << 10 // octets of DER
	maxProxiedChain = 8        // certificates beside the client's own
)

var (
	errForged = &httpError{status: http.StatusForbidden, outcome: "forgedProxy",
		text: "Client-Cert and Client-Cert-Chain are taken from this server's proxies only: leave them out, and show the certificate to TLS"}
	errProxied = &httpError{status: http.StatusBadRequest, outcome: "proxied",
		text: "the proxy's Client-Cert or Client-Cert-Chain cannot be read (RFC 9440)"}
)

// Proxies are the reverse proxies whose word on the client's certificate is
// taken. The zero value trusts none, and refuses the header fields from everyone.
type Proxies struct {
	Networks []netip.Prefix
	// Cert, if set, is the certificate (DER) that a proxy shows as TLS client:
	// an address in Networks alone is then not enough.
	Cert []byte
}

// includes reports whether the peer is one of the proxies.
func (p *Proxies) includes(r *http.Request) bool {
	addr := remoteAddr(r)
	if !slices.ContainsFunc(p.Networks, func(n netip.Prefix) bool { return n.Contains(addr) }) {
		return false
	}
	return p.Cert == nil || len(r.TLS.PeerCertificates) > 0 && bytes.Equal(r.TLS.PeerCertificates[0].Raw, p.Cert)
}

// client gives the request as it would have come without a proxy in front: the
// TLS client's certificates are those that the proxy names. From a proxy that
// names none there are none: its own certificate is not the device's. From
// anyone else the header fields are a forgery.
//
// The rest of the TLS state stays the proxy's, so that a request bound to the
// device's own TLS session does not pass for bound. But whether the proxy resumed says nothing of the device.
func (p *Proxies) client(r *http.Request) (*http.Request, error) {
	leaf, chain := r.Header.Values(ClientCertHeader), r.Header.Values(ClientCertChainHeader)
	if !p.includes(r) {
		if len(leaf)+len(chain) > 0 {
			return r, errForged
		}
		return r, nil
	}
	certs, err := parseClientCert(leaf, chain)
	if err != nil {
		return r, fmt.Errorf("%w: %w", errProxied, err)
	}
	state := *r.TLS
	state.PeerCertificates, state.VerifiedChains, state.DidResume = certs, nil, false
	proxied := r.WithContext(r.Context())
	proxied.TLS = &state
	return proxied, nil
}

// parseClientCert reads the two fields, each with all its lines; nil if there
// are none. The chain is as TLS has it, the client's own certificate first.
//
//	Client-Cert       = byte-sequence
//	Client-Cert-Chain = byte-sequence *( OWS "," OWS byte-sequence )
//	byte-sequence     = ":" base64 ":"
//
// What RFC 8941 has a parser overlook (parameters, padding left out) is
// refused: certificates are security, and proxies write them one way.
func parseClientCert(leaf, chain []string) ([]*x509.Certificate, error) {
	switch {
	case len(leaf) == 0 && len(chain) > 0:
		return nil, errors.New("Client-Cert-Chain without Client-Cert")
	case len(leaf) == 0:
		return nil, nil
	case len(leaf) > 1:
		return nil, errors.New("more than one Client-Cert")
	}
	items := []string{strings.Trim(leaf[0], " ")}
	for _, line := range chain {
		for item := range strings.SplitSeq(line, ",") {
			if items = append(items, strings.Trim(item, " \t")); len(items) > 1+maxProxiedChain {
				return nil, fmt.Errorf("a chain of more than %d certificates", maxProxiedChain)
			}
		}
	}
	certs := make([]*x509.Certificate, len(items))
	for i, item := range items {
		raw, err := parseByteSequence(item)
		if err != nil {
			return nil, err
		}
		if certs[i], err = der.Certificate(raw); err != nil {
			return nil, err
		}
	}
	return certs, nil
}

// parseByteSequence reads a Byte Sequence (RFC 8941 §3.3.5) in its one canonical form.
func parseByteSequence(item string) ([]byte, error) {
	text, begins := strings.CutPrefix(item, ":")
	text, ends := strings.CutSuffix(text, ":")
	if !begins || !ends {
		return nil, errors.New("not a byte sequence between colons")
	}
	if len(text) > base64.StdEncoding.EncodedLen(maxProxiedCert) {
		return nil, fmt.Errorf("a certificate of more than %d octets", maxProxiedCert)
	}
	if strings.ContainsAny(text, "\r\n") { // which the decoder would skip
		return nil, errors.New("a line break in a byte sequence")
	}
	return base64.StdEncoding.Strict().DecodeString(text)
}
