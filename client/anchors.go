package client

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// oidRemediation is the extended key usage that the CAs of quarantined devices are restricted to.
var oidRemediation = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 1, 1}

// forRemediation reports whether a root is restricted to remediation. A device in quarantine
// verifies its own certificate with it. It is no anchor for servers or peers: a device that kept it
// among those would accept others that are in quarantine.
func forRemediation(c *x509.Certificate) bool {
	for _, use := range c.UnknownExtKeyUsage {
		if use.Equal(oidRemediation) {
			return true
		}
	}
	return false
}

// offerer is an Enroller whose CACerts are what it was made with. It can ask the CA for its
// certificates, over TLS that was verified or in a message that was; EST does so in CACerts.
type offerer interface {
	offered(ctx context.Context, auth Auth) ([]*x509.Certificate, error)
}

// offerTime bounds the question, which nothing depends on but the next change of roots.
const offerTime = 20 * time.Second

// offered asks for the CA's certificates, where the protocol did not say them before.
func (r *run) offered(ctx context.Context, e Enroller, auth Auth) []*x509.Certificate {
	o, ok := e.(offerer)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, offerTime)
	defer cancel()
	certs, err := o.offered(ctx, auth)
	if err != nil {
		r.log.Debug("the CA's certificates are not to be had", "protocol", e.Protocol(), "err", err)
	}
	return certs
}

// judge is accept, for a device in quarantine with the anchor of that, which the CA is asked for.
func (r *run) judge(ctx context.Context, e Enroller, auth Auth, reply *Reply, req *Request, ca *CACerts) (*Identity, []string, error) {
	if len(ca.Remediation) == 0 && slices.ContainsFunc(reply.Certificates, forRemediation) {
		more := sortCACerts(r.offered(ctx, e, auth))
		ca = &CACerts{Roots: ca.Roots, Remediation: more.Remediation, Intermediates: union(ca.Intermediates, more.Intermediates)}
	}
	return accept(reply, req, ca, r.now())
}

// learn returns the anchors with those roots among the certificates offered that an anchor vouches for: the old
// root's key signed the new one's (NewWithOld, RFC 9810 §4.4). It does not matter who offers them.
func learn(anchors, offered []*x509.Certificate, now time.Time) []*x509.Certificate {
	valid := func(c *x509.Certificate) bool { return !now.Before(c.NotBefore) && !now.After(c.NotAfter) }
	roots := sortCACerts(offered).Roots
	for grown := true; grown; {
		grown = false
		for _, root := range roots {
			if !valid(root) || slices.ContainsFunc(anchors, root.Equal) {
				continue
			}
			vouched := slices.ContainsFunc(offered, func(c *x509.Certificate) bool {
				return c.IsCA && valid(c) && bytes.Equal(c.RawSubject, root.RawSubject) && bytes.Equal(c.RawSubjectPublicKeyInfo, root.RawSubjectPublicKeyInfo) &&
					slices.ContainsFunc(anchors, func(a *x509.Certificate) bool {
						return valid(a) && bytes.Equal(a.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(a) == nil
					})
			})
			if vouched {
				anchors, grown = append(slices.Clone(anchors), root), true
			}
		}
	}
	return anchors
}

// learnAnchors keeps the roots that follow those trusted, as an anchor vouches for them. Without an answer it is left to the next renewal.
func (r *run) learnAnchors(ctx context.Context, e Enroller, auth Auth) error {
	offered := r.offered(ctx, e, auth)
	if len(offered) == 0 {
		return nil
	}
	kept, err := r.store.Roots()
	if err != nil {
		return err
	}
	return r.keepAnchors(learn(kept, offered, r.now()), kept)
}

// joined is what to send along with a certificate: the longest chain without its root, then what only other
// chains have, and what leads from their roots to roots that this device does not know yet. During a change of roots a party
// that trusts any one of them can then verify it.
func joined(chains [][]*x509.Certificate, others []*x509.Certificate, now time.Time) (out []*x509.Certificate) {
	chains = slices.Clone(chains)
	slices.SortStableFunc(chains, func(a, b []*x509.Certificate) int { return len(b) - len(a) })
	for _, chain := range chains {
		out = union(out, chain[1:len(chain)-1])
	}
	endsAt := func(holds func(root *x509.Certificate) bool) bool {
		return slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return holds(chain[len(chain)-1]) })
	}
	for _, c := range others {
		crosses := endsAt(func(root *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, root.RawSubject) && bytes.Equal(c.RawSubjectPublicKeyInfo, root.RawSubjectPublicKeyInfo)
		})
		known := endsAt(func(root *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, root.RawSubject) })
		if c.IsCA && crosses && !known && now.Before(c.NotAfter) {
			out = union(out, []*x509.Certificate{c})
		}
	}
	return out
}

// offered are the certificates that EST on the same server gives, if it has EST: ACME has no place for them.
func (a *ACME) offered(ctx context.Context, _ Auth) ([]*x509.Certificate, error) {
	url := *a.directory
	url.Path, url.RawQuery = "/.well-known/est/cacerts", ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, transportError("cacerts", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &Error{Kind: BadReply, Op: "cacerts", Status: resp.StatusCode, Text: "the server gives no CA certificates"}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxCACerts))
	if err != nil {
		return nil, transportError("cacerts", err)
	}
	return parseCertsOnly(body, maxCACertCount)
}

// offered asks for the CA's certificates (RFC 9483 §4.3.1).
func (c *CMP) offered(ctx context.Context, auth Auth) ([]*x509.Certificate, error) {
	s := &session{CMP: c, op: "genm"}
	if err := s.open(auth); err != nil {
		return nil, err
	}
	asked, err := cmp.CACerts()
	if err != nil {
		return nil, err
	}
	m := cmp.NewRequest(&cmp.General{Infos: cmp.Infos{asked}}, cmp.HeaderOptions{Time: c.config.Now()})
	answer, err := s.exchange(ctx, m, c.config.Now().Add(offerTime))
	if err != nil {
		return nil, err
	}
	b, ok := answer.Body.(*cmp.General)
	if !ok {
		return nil, badCMP(s.op, nil)
	}
	raw, _, err := b.Infos.CACerts()
	if err != nil {
		return nil, badCMP(s.op, err)
	}
	var certs []*x509.Certificate
	for _, der := range raw {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, badCMP(s.op, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}
