package ocsp

import (
	"crypto/x509"
	"testing"

	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/dertest"
)

// A responder says its name in a dress of its own (RFC 5280 §7.1).
func TestResponderNameInOtherDress(t *testing.T) {
	name := func(tag asn1.Tag, text string) []byte {
		return dertest.DN([]dertest.Value{{Type: dertest.CommonName, Content: text, Tag: tag}})
	}
	cert := &x509.Certificate{RawSubject: name(asn1.PrintableString, "Status Responder")}
	for text, want := range map[string]bool{"status  responder": true, "Status Responder 2": false} {
		if got := (&Response{ByName: name(asn1.UTF8String, text)}).isSigner(cert); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}
