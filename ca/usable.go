package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/path"
	"github.com/deviceca/deviceca/policy"
)

// A CA certificate that was made elsewhere may carry what makes every certificate below it fail: constraints on
// names, uses, policies and lengths, extensions that nobody knows. They are found by trying: a sample of each
// certificate that would be issued is issued, and its path to the root verified. The keys are not at hand, so twins
// of both certificates are made, which say the same of throwaway keys.

// CheckUsable checks that what a policy grants under a CA of a role, and the CA's own certificates, verify below cert
// and root, DER. The error says which does not, and why.
func CheckUsable(p *policy.Policy, cert, root []byte, role, url string, now time.Time) error {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return fmt.Errorf("the %s certificate does not parse: %w", role, err)
	}
	r, err := x509.ParseCertificate(root)
	if err != nil {
		return fmt.Errorf("the root certificate does not parse: %w", err)
	}
	switch {
	case len(c.Subject.Names) == 0:
		return fmt.Errorf("the %s certificate has no subject: a CA must be named (RFC 5280 §4.1.2.6)", role)
	case now.Before(r.NotBefore) || !now.Before(r.NotAfter):
		return fmt.Errorf("the root certificate is valid from %s to %s, not now", r.NotBefore, r.NotAfter)
	case !now.Before(c.NotAfter):
		return fmt.Errorf("the %s certificate expired at %s: have the root make another", role, c.NotAfter.UTC().Format(time.RFC3339))
	case c.NotAfter.After(r.NotAfter):
		return fmt.Errorf("the %s certificate ends at %s, after its root (%s): certificates would outlive their path", role,
			c.NotAfter.UTC().Format(time.RFC3339), r.NotAfter.UTC().Format(time.RFC3339))
	}
	t, err := newTwins(c, r, role)
	if err != nil {
		return err
	}
	for _, spec := range samplesOf(p, role) {
		if err := t.try(spec, url, now); err != nil {
			return fmt.Errorf("under this %s certificate no certificate of profile %s would verify: %w; have the root make one without this constraint", role, spec.Name, err)
		}
	}
	return nil
}

// warnUnusable logs what does not verify under the CAs in force: of CAs that were taken before that was
// checked, and of a policy that came later. It refuses nothing, as devices may verify less.
func (s *Service) warnUnusable(st *state) {
	for _, role := range []string{"issuing", "quarantine"} {
		i := st.issuers[role]
		if i == nil || i.ended(s.now()) != nil { // under which nothing is issued
			continue
		}
		for _, root := range st.ordered {
			if root.Record.IsRoot() && i.Cert.CheckSignatureFrom(root.Cert) == nil {
				if err := CheckUsable(st.policy, i.Cert.Raw, root.Cert.Raw, role, s.opts.URL, s.now()); err != nil {
					s.log.Warn("certificates that relying parties may refuse are issued", "ca", i.Record.Name, "err", err)
				}
			}
		}
	}
}

// samplesOf are the profiles whose certificates a role's CA issues.
func samplesOf(p *policy.Policy, role string) (specs []policy.Profile) {
	for _, spec := range profilesOf(p) {
		if spec.Issuer == role {
			specs = append(specs, spec)
		}
	}
	for _, b := range builtins {
		spec := b.Profile
		if role != "issuing" && b.Name != string(BuiltinOCSP) { // the pack's signer is not verified by use
			continue
		}
		spec.Keys, spec.KeyUsage = []string{"ecdsa-p256"}, []string{"digitalSignature"}
		spec.Subject = []policy.SubjectTemplate{{Attr: "cn", Value: "{device.id}"}}
		specs = append(specs, spec)
	}
	return specs
}

// twins are a root and a CA below it that say what the real ones say, of other keys.
type twins struct {
	root *x509.Certificate
	ca   *Issuer
}

func newTwins(c, root *x509.Certificate, role string) (*twins, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	alg, err := algorithmFor(key.Public())
	if err != nil {
		return nil, err
	}
	signer := &Issuer{signer: rootKey, alg: alg, Cert: &x509.Certificate{PublicKey: rootKey.Public()}}
	twinRoot, err := signer.twin(root, rootKey.Public())
	if err != nil {
		return nil, err
	}
	twinCA, err := signer.twin(c, key.Public())
	if err != nil {
		return nil, err
	}
	issuer, err := newIssuer(IssuerRecord{Name: role + "-1", Role: role, Generation: 1, Cert: twinCA.Raw}, key)
	return &twins{twinRoot, issuer}, err
}

// twin copies a certificate for another key, signed by i.
func (i *Issuer) twin(c *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	input := cryptobyte.String(c.RawTBSCertificate)
	var tbs cryptobyte.String
	var parts [6]cryptobyte.String // version, serial, (algorithm,) issuer, validity, subject
	version := cbasn1.Tag(0).ContextSpecific().Constructed()
	if !input.ReadASN1(&tbs, cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&parts[0], version) || !tbs.ReadASN1Element(&parts[1], cbasn1.INTEGER) ||
		!tbs.SkipASN1(cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&parts[3], cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&parts[4], cbasn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&parts[5], cbasn1.SEQUENCE) || !tbs.SkipASN1(cbasn1.SEQUENCE) {
		return nil, errors.New("it is no certificate of version 3")
	}
	parts[2] = i.alg.ID
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, part := range parts {
			b.AddBytes(part)
		}
		b.AddBytes(spki)
		b.AddBytes(tbs) // unique identifiers and extensions
	})
	made, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	signature, err := i.sign(made)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(i.seal(made, signature))
}

// try issues a sample with every form of name of the profile, and verifies its path.
func (t *twins) try(spec policy.Profile, url string, now time.Time) error {
	profile, err := newProfile(spec, t.ca, url)
	if err != nil {
		return err
	}
	spki, err := sampleKey(spec.Keys[0])
	if err != nil {
		return err
	}
	var serial Serial
	rand.Read(serial[:])
	serial[0] = 1
	end := now.Add(time.Hour)
	if t.ca.Cert.NotAfter.Before(end) {
		end = t.ca.Cert.NotAfter
	}
	tbs, err := profile.tbs(template{serial: serial, notBefore: now.Add(-time.Minute), notAfter: end, names: t.sampleNames(profile), spki: spki})
	if err != nil {
		return err
	}
	signature, err := t.ca.sign(tbs)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(t.ca.seal(tbs, signature))
	if err != nil {
		return err
	}
	return t.verify(leaf, now)
}

// sampleNames are those of the profile. crypto/x509 refuses URIs without a host (urn:…) under any name constraints;
// RFC 5280 §4.2.1.10 does where URIs are constrained.
func (t *twins) sampleNames(p *Profile) Names {
	n := p.sampleNames()
	for _, c := range []*x509.Certificate{t.ca.Cert, t.root} {
		if len(c.PermittedURIDomains)+len(c.ExcludedURIDomains) > 0 {
			return n
		}
	}
	n.SANs = slices.DeleteFunc(n.SANs, func(s SAN) bool { return s.Form == "uri" })
	return n
}

func (t *twins) verify(leaf *x509.Certificate, now time.Time) error {
	leaf.UnhandledCriticalExtensions = nil // they are the profile's own wish
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(t.root)
	between.AddCert(t.ca.Cert)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return err
	}
	for _, above := range []*x509.Certificate{t.ca.Cert, t.root} {
		if use := notPermitted(above, leaf); use != "" {
			return fmt.Errorf("the extended key usages of %q lack %s, and software that nests them refuses it", above.Subject, use)
		}
	}
	// Go passes over constraints on directory names that are not critical; others do not.
	_, err := path.Verify(leaf, []*x509.Certificate{t.ca.Cert}, path.Options{Anchors: path.Anchors([]*x509.Certificate{t.root}), Now: now, ReadsNames: true})
	return err
}

// notPermitted is the first extended key usage of a certificate that a CA above does not have; "" if the CA has all, or
// no such restriction.
func notPermitted(above, leaf *x509.Certificate) string {
	permitted := usesOf(above)
	if len(permitted) == 0 || slices.Contains(permitted, "2.5.29.37.0") {
		return ""
	}
	for _, use := range usesOf(leaf) {
		if !slices.Contains(permitted, use) {
			for name, oid := range extKeyUsages {
				if oid.String() == use {
					return name
				}
			}
			return use
		}
	}
	return ""
}

// usesOf are the extended key usages of a certificate, as dotted OIDs.
func usesOf(c *x509.Certificate) (uses []string) {
	for _, e := range c.Extensions {
		var oids []asn1.ObjectIdentifier
		if e.Id.Equal(oidExtKeyUsage) {
			if _, err := asn1.Unmarshal(e.Value, &oids); err == nil {
				for _, oid := range oids {
					uses = append(uses, oid.String())
				}
			}
		}
	}
	return uses
}
