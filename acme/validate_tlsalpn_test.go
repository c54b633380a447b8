package acme_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
)

var oidACMEIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// proof is the acmeIdentifier extension for a key authorization.
func proof(keyAuthorization string) pkix.Extension {
	sum := sha256.Sum256([]byte(keyAuthorization))
	value, _ := asn1.Marshal(sum[:])
	return pkix.Extension{Id: oidACMEIdentifier, Critical: true, Value: value}
}

// validationCertificate is what a client shows for tls-alpn-01, changed by edit.
func validationCertificate(t *testing.T, edit func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	return sealValidationCertificate(t, edit, nil)
}

// sealValidationCertificate lets another key sign it, where issuer is one.
func sealValidationCertificate(t *testing.T, edit func(*x509.Certificate), issuer crypto.Signer) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "challenge"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"gw.example"}, ExtraExtensions: []pkix.Extension{proof(validationKey)}}
	if edit != nil {
		edit(c)
	}
	if issuer == nil {
		issuer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), issuer)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// alpnServer shows a certificate, and notes what it was asked for.
type alpnServer struct {
	config *tls.Config
	hello  *tls.ClientHelloInfo
	port   uint16
}

func newALPNServer(t *testing.T, c *tls.Certificate) *alpnServer {
	t.Helper()
	s := new(alpnServer)
	s.config = &tls.Config{NextProtos: []string{"acme-tls/1", "http/1.1"}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		s.hello = h
		return c, nil
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s.port = portOf(t, l.Addr())
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				tls.Server(raw, s.config).Handshake()
			}()
		}
	}()
	return s
}

func (s *alpnServer) validate(t *testing.T, kind, value string) error {
	t.Helper()
	v := newValidator(t, "tls-alpn-01", acme.ValidatorOptions{TLSPort: s.port, Resolver: loopbackDNS(t).Address, AllowNetworks: networks("127.0.0.0/8"), Timeout: 5 * time.Second})
	return v.Validate(t.Context(), acme.ValidationRequest{Type: "tls-alpn-01", Identifier: acme.Identifier{Type: kind, Value: value}, Token: validationToken, KeyAuthorization: validationKey})
}

func TestTLSALPN01(t *testing.T) {
	s := newALPNServer(t, validationCertificate(t, nil))
	for _, name := range []string{"gw.example", "GW.example"} {
		if err := s.validate(t, "dns", name); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.hello.SupportedProtos) != 1 || s.hello.SupportedProtos[0] != "acme-tls/1" || s.hello.ServerName != "gw.example" {
		t.Errorf("the handshake offered %v for %s", s.hello.SupportedProtos, s.hello.ServerName)
	}
	s = newALPNServer(t, validationCertificate(t, func(c *x509.Certificate) { c.DNSNames = []string{"Gw.Example"} }))
	if err := s.validate(t, "dns", "gw.example"); err != nil {
		t.Error(err)
	}
	s = newALPNServer(t, validationCertificate(t, func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 1).To4()}
	}))
	if err := s.validate(t, "ip", "127.0.0.1"); err != nil {
		t.Error(err)
	}
	if s.hello.ServerName != "1.0.0.127.in-addr.arpa" {
		t.Errorf("the handshake asked for %s", s.hello.ServerName)
	}
}

func TestTLSALPN01Certificates(t *testing.T) {
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	noProof := func(c *x509.Certificate) { c.ExtraExtensions = nil }
	for _, tt := range []struct {
		name   string
		edit   func(*x509.Certificate)
		issuer crypto.Signer
		text   string
	}{
		{"another name", func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }, nil, "names"},
		{"a wildcard", func(c *x509.Certificate) { c.DNSNames = []string{"*.example"} }, nil, "names"},
		{"one name more", func(c *x509.Certificate) { c.DNSNames = []string{"gw.example", "other.example"} }, nil, "names"},
		{"the name twice", func(c *x509.Certificate) { c.DNSNames = []string{"gw.example", "gw.example"} }, nil, "names"},
		{"an address as well", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }, nil, "names"},
		{"an address written as a name", func(c *x509.Certificate) { c.DNSNames = nil; c.EmailAddresses = []string{"gw.example"} }, nil, "names"},
		{"the name as common name only", func(c *x509.Certificate) { c.DNSNames = nil; c.Subject.CommonName = "gw.example" }, nil, "names"},
		{"no proof", noProof, nil, "no acmeIdentifier"},
		{"proof not critical", func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = false }, nil, "not critical"},
		{"proof of another token", func(c *x509.Certificate) { c.ExtraExtensions[0] = proof("other." + validationKey) }, nil, "another digest"},
		{"proof without its OCTET STRING", func(c *x509.Certificate) { c.ExtraExtensions[0].Value = c.ExtraExtensions[0].Value[2:] }, nil, "another digest"},
		{"proof with something behind it", func(c *x509.Certificate) { c.ExtraExtensions[0].Value = append(c.ExtraExtensions[0].Value, 5, 0) }, nil, "another digest"},
		{"proof cut short", func(c *x509.Certificate) { c.ExtraExtensions[0].Value = c.ExtraExtensions[0].Value[:20] }, nil, "another digest"},
		{"proof empty", func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{4, 0} }, nil, "another digest"},
		{"signed by another key", nil, stranger, "self-signed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c *tls.Certificate
			if tt.issuer == nil {
				c = validationCertificate(t, tt.edit)
			} else {
				c = foreignCertificate(t, tt.issuer)
			}
			wantFault(t, newALPNServer(t, c).validate(t, "dns", "gw.example"), "unauthorized", tt.text)
		})
	}
	t.Run("an address of another host", func(t *testing.T) {
		c := validationCertificate(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 2).To4()} })
		wantFault(t, newALPNServer(t, c).validate(t, "ip", "127.0.0.1"), "unauthorized", "names")
	})
	t.Run("an address as dNSName", func(t *testing.T) {
		c := validationCertificate(t, func(c *x509.Certificate) { c.DNSNames = []string{"127.0.0.1"} })
		wantFault(t, newALPNServer(t, c).validate(t, "ip", "127.0.0.1"), "unauthorized", "names")
	})
}

// foreignCertificate is a validation certificate that a CA signed.
func foreignCertificate(t *testing.T, issuer crypto.Signer) *tls.Certificate {
	t.Helper()
	parent := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "CA"}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"gw.example"}, ExtraExtensions: []pkix.Extension{proof(validationKey)}}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), issuer)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLSALPN01Handshakes(t *testing.T) {
	good := validationCertificate(t, nil)
	t.Run("no ALPN", func(t *testing.T) {
		s := newALPNServer(t, good)
		s.config.NextProtos = nil
		wantFault(t, s.validate(t, "dns", "gw.example"), "unauthorized", "acme-tls/1")
	})
	t.Run("another ALPN", func(t *testing.T) {
		s := newALPNServer(t, good)
		s.config.NextProtos = []string{"h2"}
		wantFault(t, s.validate(t, "dns", "gw.example"), "tls", "no application protocol")
	})
	t.Run("the name is unknown", func(t *testing.T) {
		s := newALPNServer(t, good)
		s.config.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
		wantFault(t, s.validate(t, "dns", "gw.example"), "tls", "unrecognized name")
	})
	t.Run("old TLS", func(t *testing.T) {
		s := newALPNServer(t, good)
		s.config.MinVersion, s.config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		wantFault(t, s.validate(t, "dns", "gw.example"), "tls", "version")
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		s := newALPNServer(t, good)
		s.config.MaxVersion = tls.VersionTLS12
		if err := s.validate(t, "dns", "gw.example"); err != nil {
			t.Error(err)
		}
	})
	t.Run("no TLS", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Write([]byte("SSH-2.0-do not show\r\n"))
				c.Close()
			}
		}()
		s := &alpnServer{port: portOf(t, l.Addr())}
		wantFault(t, s.validate(t, "dns", "gw.example"), "tls", "does not look like")
	})
	t.Run("nobody there", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &alpnServer{port: portOf(t, l.Addr())}
		l.Close()
		wantFault(t, s.validate(t, "dns", "gw.example"), "connection", "connection refused")
	})
}
