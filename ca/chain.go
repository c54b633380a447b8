package ca

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

// After a root was rotated, cross-certificates lead from it to the others (RFC 9810 §4.4): a party that trusts
// any one of the roots accepts what stands below any other, if it is sent those that lie between. They go along with
// every chain until they expire, which the older root's end brings about.

// Chain is a CA's certificate with what leads from it to every root, without the roots, DER.
func (s *Service) Chain(name string) [][]byte {
	st := s.current.Load()
	i, ok := st.issuers[name]
	if !ok {
		return nil
	}
	return st.chain(i, s.now())
}

// chain is the issuer's certificate and the cross-certificates that lead from its root to the others, without the
// root. Those on the longest way come first, in order: TLS 1.2 and ACME want each to certify the one before.
func (st *state) chain(i *Issuer, now time.Time) [][]byte {
	chain := [][]byte{i.Cert.Raw}
	for _, path := range st.paths(i, now) {
		for _, cross := range path {
			if !slices.ContainsFunc(chain, func(have []byte) bool { return bytes.Equal(have, cross.Cert.Raw) }) {
				chain = append(chain, cross.Cert.Raw)
			}
		}
	}
	return chain
}

// Chains are the ways from a CA's certificates to a root, each without the root, in which
// every certificate certifies the one before it, DER. There is one, until a root was rotated: then also those
// that lead to the other roots. The longest comes first, as it passes by the most roots.
func (s *Service) Chains(issuer string) (chains [][][]byte) {
	st := s.current.Load()
	i, ok := st.issuers[issuer]
	if !ok {
		return nil
	}
	for _, path := range st.paths(i, s.now()) {
		chain := [][]byte{i.Cert.Raw}
		for _, cross := range path {
			chain = append(chain, cross.Cert.Raw)
		}
		chains = append(chains, chain)
	}
	return chains
}

// paths are the ways over cross-certificates from the root of i, the longest first and the newest among equals; the
// empty one, which ends at that root itself, is the last.
func (st *state) paths(i *Issuer, now time.Time) [][]*Issuer {
	var all [][]*Issuer
	var walk func(root []byte, passed [][]byte, path []*Issuer)
	walk = func(root []byte, passed [][]byte, path []*Issuer) {
		for _, cross := range st.ordered {
			next := cross.Cert.AuthorityKeyId
			if cross.Record.Role == "cross" && st.stage(cross, now).Live() && bytes.Equal(cross.Cert.SubjectKeyId, root) &&
				!slices.ContainsFunc(passed, func(id []byte) bool { return bytes.Equal(id, next) }) {
				walk(next, append(slices.Clone(passed), next), append(slices.Clone(path), cross))
			}
		}
		all = append(all, path)
	}
	walk(i.Cert.AuthorityKeyId, [][]byte{i.Cert.AuthorityKeyId}, nil)
	slices.SortStableFunc(all, func(a, b []*Issuer) int {
		if len(a) != len(b) || len(a) == 0 {
			return cmp.Compare(len(b), len(a))
		}
		return cmp.Compare(b[len(b)-1].Record.Generation, a[len(a)-1].Record.Generation)
	})
	return all
}
