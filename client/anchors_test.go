package client

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"testing"
	"time"
)

// authorityCert makes a CA certificate for a subject and key, signed by another's, for an hour from now on.
func authorityCert(t *testing.T, cn string, key crypto.Signer, parent *x509.Certificate, signer crypto.Signer, begins time.Duration) *x509.Certificate {
	t.Helper()
	from := time.Now().Add(begins)
	return sign(t, &x509.Certificate{SerialNumber: serialNumber(t), Subject: pkix.Name{CommonName: cn}, NotBefore: from, NotAfter: from.Add(2 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, parent, key.Public(), signer)
}

// A new root is learnt from whoever offers it if a root that is trusted signed its key, and from nobody otherwise.
func TestLearn(t *testing.T) {
	one, two, three, stranger := newKey(t), newKey(t), newKey(t), newKey(t)
	root1 := authorityCert(t, "root", one, nil, one, -time.Hour)
	root2 := authorityCert(t, "root 2", two, nil, two, -time.Hour)
	root3 := authorityCert(t, "root 3", three, nil, three, -time.Hour)
	own := authorityCert(t, "root 2", stranger, nil, stranger, -time.Hour) // another's, with that name
	twoByOne := authorityCert(t, "root 2", two, root1, one, -time.Hour)
	threeByTwo := authorityCert(t, "root 3", three, root2, two, -time.Hour)
	oneByTwo := authorityCert(t, "root", one, root2, two, -time.Hour)
	byStranger := authorityCert(t, "root 2", two, authorityCert(t, "root", stranger, nil, stranger, -time.Hour), stranger, -time.Hour)
	over := authorityCert(t, "root 2", two, root1, one, -3*time.Hour)
	for name, c := range map[string]struct {
		offered []*x509.Certificate
		want    []*x509.Certificate
	}{
		"nothing":                        {nil, nil},
		"without a link":                 {[]*x509.Certificate{root2, oneByTwo}, nil},
		"linked":                         {[]*x509.Certificate{root2, oneByTwo, twoByOne}, []*x509.Certificate{root2}},
		"linked over two steps":          {[]*x509.Certificate{root3, threeByTwo, root2, twoByOne}, []*x509.Certificate{root2, root3}},
		"the step between is missing":    {[]*x509.Certificate{root3, threeByTwo, twoByOne}, nil},
		"linked by a stranger":           {[]*x509.Certificate{root2, byStranger}, nil},
		"a stranger under a link's name": {[]*x509.Certificate{own, twoByOne}, nil},
		"the link has expired":           {[]*x509.Certificate{root2, over}, nil},
	} {
		got := learn([]*x509.Certificate{root1}, c.offered, time.Now())
		want := append([]*x509.Certificate{root1}, c.want...)
		if !slices.EqualFunc(got, want, (*x509.Certificate).Equal) {
			t.Errorf("%s: %d anchors, want %d", name, len(got), len(want))
		}
	}
}
