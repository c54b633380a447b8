package pack

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"testing"
)

func TestDelegateRefuses(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	key := testKey("delegate")
	st := must[*State](t)(NewState(c.header(1, 1, 0, 1000), slices.Values([]uint64{499, 501})))
	with := func(change func(*x509.Certificate)) *x509.Certificate {
		template := delegateTemplate()
		change(template)
		return template
	}
	weak := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	p521 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	for _, tc := range []struct {
		name     string
		template *x509.Certificate
		parent   *ca
		key      crypto.Signer
		ok       bool
	}{
		{"fine", delegateTemplate(), c, key, true},
		{"serial of another form", with(func(x *x509.Certificate) { x.SerialNumber = big.NewInt(7) }), c, key, true},
		{"ends with the pack", with(func(x *x509.Certificate) { x.NotAfter = st.Header().NextUpdate }), c, key, true},
		{"ends before the pack", with(func(x *x509.Certificate) { x.NotAfter = st.Header().NextUpdate.Add(-1e9) }), c, key, false},
		{"begins after the pack", with(func(x *x509.Certificate) { x.NotBefore = st.Header().ThisUpdate.Add(1e9) }), c, key, false},
		{"of another CA with the same name", delegateTemplate(), newCA(t, testKey("other")), key, false},
		{"no extended key usage", with(func(x *x509.Certificate) { x.UnknownExtKeyUsage = nil }), c, key, false},
		{"other extended key usage", with(func(x *x509.Certificate) {
			x.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 55555, 1, 3}}
		}), c, key, false},
		{"any extended key usage", with(func(x *x509.Certificate) {
			x.UnknownExtKeyUsage, x.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		}), c, key, false},
		{"one extended key usage more", with(func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), c, key, false},
		{"two of them", with(func(x *x509.Certificate) {
			x.UnknownExtKeyUsage = append(x.UnknownExtKeyUsage, asn1.ObjectIdentifier{1, 2, 3})
		}), c, key, false},
		{"no key usage", with(func(x *x509.Certificate) { x.KeyUsage = 0 }), c, key, false},
		{"key usage more", with(func(x *x509.Certificate) { x.KeyUsage |= x509.KeyUsageCRLSign }), c, key, false},
		{"a CA", with(func(x *x509.Certificate) { x.IsCA, x.BasicConstraintsValid = true, true }), c, key, false},
		{"unknown critical extension", with(func(x *x509.Certificate) {
			x.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}), c, key, false},
		{"revoked by the pack", with(func(x *x509.Certificate) { x.SerialNumber.SetBytes(serialOf(501)) }), c, key, false},
		{"weak key", delegateTemplate(), c, weak, false},
		{"P-521", delegateTemplate(), c, p521, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cert := certificate(t, tc.template, tc.parent.cert, tc.key.Public(), tc.parent.key)

			// What the relying party says to a pack that such a delegate signed nevertheless.
			alg, err := algorithmOf(cert.PublicKey)
			if err != nil {
				alg, _ = algorithmOf(key.Public())
			}
			e := envelope{contentType: contentType, kid: keyID(cert), alg: alg.id, cert: cert.Raw, payload: st.appendPack(nil, Hash{})}
			e.protected = e.appendProtected(nil)
			if err == nil {
				e.signature = must[[]byte](t)(alg.sign(tc.key, e.toBeSigned(nil)))
			}
			if _, err := Verify(e.append(nil), c.options()); tc.ok != (err == nil) || !tc.ok && !errors.Is(err, ErrSigner) {
				t.Errorf("verify: %v", err)
			}

			// And the publisher does not come so far.
			s, err := NewSigner(c.cert, tc.key, cert)
			if err == nil {
				_, err = st.Sign(s, Hash{})
			}
			if tc.ok != (err == nil) || !tc.ok && !errors.Is(err, ErrSigner) {
				t.Errorf("sign: %v", err)
			}
		})
	}
	if _, err := NewSigner(c.cert, testKey("some other"), nil); !errors.Is(err, ErrSigner) {
		t.Errorf("key that is not the issuer's: %v", err)
	}
}

func TestDelegateInDeltas(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	a, aCert := c.delegate(t, testKey("a"), delegateTemplate())
	b, bCert := c.delegate(t, testKey("b"), delegateTemplate())
	first := must[*State](t)(NewState(c.header(1, 1, 0, 1000), slices.Values([]uint64{4})))
	second := must[*State](t)(first.Next(c.header(1, 2, 0, 1000), revocations(5)))
	third := must[*State](t)(second.Next(c.header(1, 3, 0, 1000), revocations(6)))
	byA := must[*Pack](t)(Verify(must[[]byte](t)(first.Sign(a.Brief(), Hash{})), c.options()))
	byIssuer := must[*Pack](t)(Verify(must[[]byte](t)(first.Sign(c.sign, Hash{})), c.options()))
	delta := func(from, to *State, by *Signer) []byte { return must[[]byte](t)(from.Delta(to, by)) }
	if byA.Signer().Subject.String() != aCert.Subject.String() || !byA.Signer().Equal(aCert) {
		t.Fatal("full packs carry the certificate always")
	}
	for _, tc := range []struct {
		name   string
		p      *Pack
		deltas [][]byte
		signer *x509.Certificate
		want   error
	}{
		{"same delegate, certificate left out", byA, [][]byte{delta(first, second, a.Brief())}, aCert, nil},
		{"same delegate with certificate", byA, [][]byte{delta(first, second, a)}, aCert, nil},
		{"issuer after delegate", byA, [][]byte{delta(first, second, c.sign)}, c.cert, nil},
		{"other delegate", byA, [][]byte{delta(first, second, b), delta(second, third, b.Brief())}, bCert, nil},
		{"other delegate, certificate left out", byA, [][]byte{delta(first, second, b.Brief())}, nil, ErrSigner},
		{"delegate not met, certificate left out", byIssuer, [][]byte{delta(first, second, a.Brief())}, nil, ErrSigner},
		{"delegate after issuer", byIssuer, [][]byte{delta(first, second, a)}, aCert, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := tc.p, error(nil)
			for _, d := range tc.deltas {
				if p, err = p.Apply(d); err != nil {
					break
				}
			}
			if !errors.Is(err, tc.want) || err == nil && !p.Signer().Equal(tc.signer) {
				t.Fatal(err)
			}
		})
	}

	// The delegate is index 500. Once revoked, it signs neither its own revocation nor its return.
	gone := must[*State](t)(first.Next(c.header(1, 2, 0, 1000), revocations(500)))
	back := must[*State](t)(gone.Next(c.header(1, 3, 0, 1000), func(yield func(uint64, bool) bool) { yield(500, false) }))
	if _, err := first.Delta(gone, a); !errors.Is(err, ErrSigner) {
		t.Errorf("publisher: %v", err)
	}
	p := must[*Pack](t)(byA.Apply(delta(first, gone, c.sign)))
	if _, err := p.Apply(delta(gone, back, a)); !errors.Is(err, ErrSigner) {
		t.Errorf("relying party: %v", err)
	}
}

// A delegate counts for nothing whose certificate is signed with SHA-1, or by an RSA key that can be factored.
func TestDelegateWeakSignature(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	key := testKey("delegate")
	for _, tc := range []struct {
		name string
		bits int
		alg  x509.SignatureAlgorithm
		ok   bool
	}{{"RSA 2048, SHA-256", 2048, x509.SHA256WithRSA, true}, {"RSA 2048, SHA-1", 2048, x509.SHA1WithRSA, false}, {"RSA 1024, SHA-256", 1024, x509.SHA256WithRSA, false}} {
		t.Run(tc.name, func(t *testing.T) {
			by := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, tc.bits))
			c := &ca{cert: issuerCert(t, by), key: by}
			template := delegateTemplate()
			template.SignatureAlgorithm = tc.alg
			cert := certificate(t, template, c.cert, key.Public(), by)
			st := must[*State](t)(NewState(c.header(1, 1, 0, 1000), slices.Values([]uint64{1})))
			e := envelope{contentType: contentType, kid: keyID(cert), alg: -8, cert: cert.Raw, payload: st.appendPack(nil, Hash{})}
			e.protected = e.appendProtected(nil)
			alg, _ := algorithmOf(key.Public())
			e.signature = must[[]byte](t)(alg.sign(key, e.toBeSigned(nil)))
			if _, err := Verify(e.append(nil), c.options()); tc.ok != (err == nil) || !tc.ok && !errors.Is(err, ErrSigner) {
				t.Error(err)
			}
		})
	}
}
