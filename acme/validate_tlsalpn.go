package acme

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const alpnProtocol = "acme-tls/1" // RFC 8737 §4

var (
	oidACMEIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31} // RFC 8737 §3
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// tlsALPNValidator validates tls-alpn-01 (RFC 8737 §3; RFC 8738 §6 for addresses).
type tlsALPNValidator struct {
	network *network
	port    uint16
}

func (v *tlsALPNValidator) Validate(ctx context.Context, r ValidationRequest) error {
	host, address, err := v.network.target(r.Identifier)
	if err != nil {
		return err
	}
	raw, err := v.network.dial(ctx, host, v.port)
	if err != nil {
		return err
	}
	defer raw.Close()
	from := raw.RemoteAddr()
	name := host
	if address.IsValid() {
		name = reverseName(address)
	}
	conn := tls.Client(raw, &tls.Config{
		ServerName: name, NextProtos: []string{alpnProtocol}, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, // the certificate is self-signed; what it must hold is checked below
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		if text, ok := tlsFault(err); ok {
			return failed("tls", "the handshake with %v for %s fails: %s", from, name, text)
		}
		return failed("connection", "the handshake with %v for %s breaks off: %s", from, name, cause(err))
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != alpnProtocol {
		return failed("unauthorized", "%v does not negotiate the protocol %s", from, alpnProtocol)
	}
	if fault := checkALPNCertificate(state.PeerCertificates[0], host, address, r.KeyAuthorization); fault != "" {
		return failed("unauthorized", "the certificate that %v shows for %s %s", from, name, fault)
	}
	return nil
}

// checkALPNCertificate says what is wrong with a validation certificate, "" for nothing.
func checkALPNCertificate(c *x509.Certificate, host string, address netip.Addr, keyAuthorization string) string {
	if !bytes.Equal(c.RawIssuer, c.RawSubject) || c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) != nil {
		return "is not self-signed"
	}
	var san, proof []byte
	critical := false
	for _, x := range c.Extensions { // none is there twice: crypto/x509 sees to that
		switch {
		case x.Id.Equal(oidSubjectAltName):
			san = x.Value
		case x.Id.Equal(oidACMEIdentifier):
			proof, critical = x.Value, x.Critical
		}
	}
	switch want := sha256.Sum256([]byte(keyAuthorization)); {
	case !namesOnly(san, host, address):
		return "has other alternative names than this one, or none"
	case proof == nil:
		return "has no acmeIdentifier extension"
	case !critical:
		return "has an acmeIdentifier extension that is not critical"
	case subtle.ConstantTimeCompare(proof, append([]byte{4, sha256.Size}, want[:]...)) != 1: // OCTET STRING (SIZE (32))
		return "has another digest in its acmeIdentifier extension than that of the key authorization"
	}
	return ""
}

// namesOnly reports whether a subjectAltName extension holds the one name and nothing else.
func namesOnly(san []byte, host string, address netip.Addr) bool {
	const dNSName, iPAddress = 2, 7 // RFC 5280 §4.2.1.6
	in := cryptobyte.String(san)
	var names, value cryptobyte.String
	var tag casn1.Tag
	if !in.ReadASN1(&names, casn1.SEQUENCE) || !in.Empty() || !names.ReadAnyASN1(&value, &tag) || !names.Empty() {
		return false
	}
	if address.IsValid() {
		return tag == casn1.Tag(iPAddress).ContextSpecific() && bytes.Equal(value, address.AsSlice())
	}
	return tag == casn1.Tag(dNSName).ContextSpecific() && strings.EqualFold(string(value), host)
}

// reverseName is the name of an address in in-addr.arpa (RFC 1035 §3.5) or ip6.arpa (RFC 3596 §2.5).
func reverseName(a netip.Addr) string {
	var b strings.Builder
	octets := a.AsSlice()
	for i := len(octets) - 1; i >= 0; i-- {
		if a.Is4() {
			b.WriteString(strconv.Itoa(int(octets[i])) + ".")
			continue
		}
		const hex = "0123456789abcdef"
		b.Write([]byte{hex[octets[i]&15], '.', hex[octets[i]>>4], '.'})
	}
	if a.Is4() {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}
