package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/deviceca/deviceca/policy"
)

// lints are zlint's checks that apply to certificates of a private CA: those
// of the RFCs and of the community, not those of browsers.
var lints = sync.OnceValues(func() (lint.Registry, error) {
	return lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC6960, lint.RFC8813, lint.Community},
		ExcludeNames: []string{
			// The certificate says how it can be checked only as far as its profile wants it to.
			"w_ext_aia_access_location_missing", "w_sub_cert_aia_contains_internal_names",
			// RFC 5280 §4.2.1.2 makes SHA-1 the example, RFC 7093 the alternative that we use.
			"w_ext_subject_key_identifier_not_recommended_subscriber",
			// Subjects name devices in full; RFC 5280's bound on names is checked by e_subject_common_name_max_length.
			"n_contains_redacted_dnsname",
			// It refuses ports and hosts of one label, and wants an authority where RFC 5280 §4.2.1.6 wants a host in
			// it if there is one; policy checks that for each name.
			"e_ext_san_uri_host_not_fqdn_or_ip",
		},
	})
})

// lintFault is a lint that a certificate failed. Details may quote the certificate, and the factors of its key.
type lintFault struct{ name, details string }

// lintCertificate runs every applicable lint over a certificate.
func lintCertificate(der []byte) ([]lintFault, error) {
	registry, err := lints()
	if err != nil {
		return nil, err
	}
	cert, err := zx509.ParseCertificate(der)
	if err != nil {
		return []lintFault{{"it_does_not_parse", err.Error()}}, nil
	}
	var faults []lintFault
	for name, result := range zlint.LintCertificateEx(cert, registry).Results {
		if result.Status >= lint.Error {
			faults = append(faults, lintFault{name, result.Details})
		}
	}
	slices.SortFunc(faults, func(a, b lintFault) int { return strings.Compare(a.name, b.name) })
	return faults, nil
}

// lintError tells faults with their details, but for lints of keys: theirs are the factors. It is nil if there are none.
func lintError(faults []lintFault) error {
	if faults == nil {
		return nil
	}
	var all []string
	for _, f := range faults {
		if strings.Contains(f.name, "rsa") {
			f.details = ""
		}
		all = append(all, strings.TrimSpace(f.name+" "+f.details))
	}
	return errors.New("lint: " + strings.Join(all, ", "))
}

// watch lints a share of the certificates whole. It watches over us: what a client can bring about is
// checked for every certificate, so that a finding is a fault of ours. It raises the alarm and does not
// decide, or chance would. The log names the lints alone: their details may hold the factors of a key.
func (s *Service) watch(p *Profile, t template, tbs []byte) {
	if s.opts.LintShare <= 0 || rand.Float64() >= s.opts.LintShare {
		return
	}
	// The signature is not looked at, so nothing needs to be signed to lint.
	faults, err := lintCertificate(p.issuer.seal(tbs, make([]byte, 64)))
	if err != nil {
		s.log.Error("a certificate could not be linted", "serial", t.serial.String(), "profile", p.Name, "err", err)
		return
	}
	if faults == nil {
		return
	}
	s.counts.lintFindings.Add(1)
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	s.log.Error("a certificate fails lints: report this as a fault of deviceca, and decide whether to revoke it",
		"serial", t.serial.String(), "profile", p.Name, "lints", strings.Join(names, ", "))
}

// lint makes one certificate for each key type that the profile accepts, with
// every form of name that it allows, signs it with a throwaway key of the
// issuer's kind, and lints it whole. What then varies is checked per certificate.
func (p *Profile) lint(now time.Time, validity time.Duration) error {
	throwaway, err := throwawaySigner(p.issuer.Cert.PublicKey)
	if err != nil {
		return err
	}
	sample := &Issuer{Record: p.issuer.Record, Cert: p.issuer.Cert, signer: throwaway, alg: p.issuer.alg}
	withSample := *p
	withSample.issuer = sample
	var serial Serial
	crand.Read(serial[:])
	serial[0] = 1
	for _, algorithm := range p.Keys {
		spki, err := sampleKey(algorithm)
		if err != nil {
			return fmt.Errorf("profile %s: %w", p.Name, err)
		}
		t := template{serial: serial, notBefore: now.Add(-p.Backdate), notAfter: now.Add(validity), names: p.sampleNames(), spki: spki}
		tbs, err := withSample.tbs(t)
		if err != nil {
			return fmt.Errorf("profile %s: %w", p.Name, err)
		}
		faults, err := lintCertificate(sample.seal(tbs, sampleSignature(sample, tbs)))
		if err != nil {
			return err
		}
		if faults != nil {
			return fmt.Errorf("profile %s with a key of %s: %w", p.Name, algorithm, lintError(faults))
		}
	}
	return nil
}

func sampleSignature(i *Issuer, tbs []byte) []byte {
	sig, err := i.alg.Sign(i.signer, i.alg.Digest(tbs))
	if err != nil {
		panic(err) // a software key of our own making
	}
	return sig
}

// sampleNames is the fullest name that the profile can issue.
func (p *Profile) sampleNames() Names {
	n := p.fill(Names{}, policy.Device{ID: "sample-device.example", Group: "sample"})
	values := map[string]string{"dns": "sample-device.example", "uri": "urn:dev:sample-device.example", "ip": "192.0.2.1",
		"email": "device@sample.example", "permanent-identifier": "sample-device", "hardware-module": "sample/1.3.6.1.4.1.55555.2"}
	for _, form := range p.SAN {
		if v, ok := values[form]; ok {
			n.SANs = append(n.SANs, SAN{form, v})
		}
	}
	return n
}

// fill completes the names asked for with what the profile's subject template
// says of the device. Policy has compared what was asked with the same
// template, so the template's order and the inventory's spelling stand.
func (p *Profile) fill(asked Names, d policy.Device) Names {
	filled := Names{SANs: slices.Clone(asked.SANs)}
	for _, t := range p.Subject {
		value, _ := t.Expand(d)
		filled.Subject = append(filled.Subject, Attribute{strings.ToLower(t.Attr), value})
	}
	return filled
}

// throwawaySigner makes a key of the kind of pub. RSA keys are made once, as that takes long.
func throwawaySigner(pub crypto.PublicKey) (crypto.Signer, error) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.GenerateKey(pub.Curve, crand.Reader)
	case ed25519.PublicKey:
		_, key, err := ed25519.GenerateKey(crand.Reader)
		return key, err
	case *rsa.PublicKey:
		return throwawayRSA()
	}
	return nil, fmt.Errorf("a CA key of type %T", pub)
}

var throwawayRSA = sync.OnceValues(func() (crypto.Signer, error) { return rsa.GenerateKey(crand.Reader, 2048) })

// sampleKey is a SubjectPublicKeyInfo of the algorithm named. RSA moduli are
// made up, not multiplied: nothing is ever verified under them, and finding
// primes would take longer than all the rest of starting.
func sampleKey(algorithm string) ([]byte, error) {
	var pub crypto.PublicKey
	switch algorithm {
	case "ecdsa-p256", "ecdsa-p384", "ecdsa-p521":
		curve := map[string]elliptic.Curve{"ecdsa-p256": elliptic.P256(), "ecdsa-p384": elliptic.P384(), "ecdsa-p521": elliptic.P521()}[algorithm]
		key, err := ecdsa.GenerateKey(curve, crand.Reader)
		if err != nil {
			return nil, err
		}
		pub = key.Public()
	case "ed25519":
		key, _, err := ed25519.GenerateKey(crand.Reader)
		if err != nil {
			return nil, err
		}
		pub = key
	default:
		var bits int
		if _, err := fmt.Sscanf(algorithm, "rsa-%d", &bits); err != nil || bits < 2048 || bits > 8192 || bits%8 != 0 {
			return nil, fmt.Errorf("%q is not a key algorithm", algorithm)
		}
		pub = &rsa.PublicKey{N: sampleModulus(bits), E: 65537}
	}
	return x509.MarshalPKIXPublicKey(pub)
}

// sampleModulus is an odd number of the size asked for without small factors.
func sampleModulus(bits int) *big.Int {
	raw := make([]byte, 0, bits/8+sha256.Size)
	for i := byte(0); len(raw) < bits/8; i++ {
		block := sha256.Sum256([]byte{i})
		raw = append(raw, block[:]...)
	}
	raw = raw[:bits/8]
	raw[0] |= 0x80
	raw[len(raw)-1] |= 1
	n, two, r := new(big.Int).SetBytes(raw), big.NewInt(2), new(big.Int)
	for slices.ContainsFunc(smallPrimes(), func(p int64) bool { return r.Mod(n, big.NewInt(p)).Sign() == 0 }) {
		n.Add(n, two)
	}
	return n
}

var smallPrimes = sync.OnceValue(func() []int64 {
	var primes []int64
	for n := int64(3); n < 1000; n += 2 {
		if !slices.ContainsFunc(primes, func(p int64) bool { return n%p == 0 }) {
			primes = append(primes, n)
		}
	}
	return primes
})
