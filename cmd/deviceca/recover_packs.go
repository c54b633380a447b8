package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/pack"
)

type signedPack struct {
	*pack.Pack
	files  []string
	issuer ca.IssuerRecord
}

// packLimits are for packs of our own.
var packLimits = pack.Limits{Bytes: 1 << 30, Revoked: 1 << 30}

// readPacks verifies full packs, and applies the deltas among the files where they fit.
func (r *recovery) readPacks(files []string) (all []signedPack, err error) {
	deltas := map[string][]byte{}
	for _, file := range files {
		raw, err := readSource(context.Background(), file)
		if err != nil {
			return nil, ca.Errorf(ca.Malformed, "%w", err)
		}
		parts, err := pack.Split(raw)
		if err != nil {
			parts = [][]byte{raw} // which is refused below, with the reason
		}
		for n, part := range parts {
			name := file
			if len(parts) > 1 {
				name = fmt.Sprintf("%s, pack %d", file, n+1)
			}
			p, err := r.openPack(part)
			if err != nil {
				deltas[name] = part
				continue
			}
			p.files = []string{name}
			all = append(all, p)
		}
	}
	for again := true; again; {
		again = false
		for file, raw := range deltas {
			for i := range all {
				if next, err := all[i].Apply(raw); err == nil {
					all[i].Pack, all[i].files, again = next, append(all[i].files, file), true
					delete(deltas, file)
					break
				}
			}
		}
	}
	for file, raw := range deltas {
		_, err := r.openPack(raw)
		return nil, ca.Errorf(ca.Malformed, "%s is neither a pack of this CA nor a delta that follows one given: %w", file, err)
	}
	return all, nil
}

func (r *recovery) openPack(raw []byte) (p signedPack, err error) {
	for _, record := range r.service.Issuers() {
		if !record.Subordinate() {
			continue
		}
		cert, parseErr := x509.ParseCertificate(record.Cert)
		if parseErr != nil {
			return p, parseErr
		}
		if p.Pack, err = pack.Verify(raw, pack.Options{Issuer: cert, Limits: packLimits}); err == nil {
			p.issuer = record
			return p, nil
		}
	}
	return p, err
}

func (r *recovery) enterPack(ctx context.Context, p signedPack) error {
	h := p.Header()
	if h.Sequence < 1<<63-1 && !r.dry {
		if err := r.store.RaiseCounter(ctx, "pack", p.issuer.Name, int64(h.Sequence)); err != nil {
			return err
		}
	}
	if r.older(strings.Join(p.files, ", "), p.issuer.Role, h.ThisUpdate) {
		return nil
	}
	why := fmt.Sprintf("pack %d of %s", h.Sequence, p.issuer.Name)
	for index := range p.All() {
		serial, err := r.store.CertificateAtIndex(ctx, p.issuer.Name, index)
		if errors.Is(err, ca.ErrNoRecord) {
			if serial, err = ca.IndexOnly(index), nil; r.indexes[place{p.issuer.Name, index}] {
				continue // a CRL gave the whole serial, in a dry run
			}
		}
		if err == nil {
			// When and why, a pack does not say.
			err = r.revoke(ctx, serial, p.issuer.Name, ca.Revocation{Time: h.ThisUpdate, Reason: ca.ReasonUnspecified}, why)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
