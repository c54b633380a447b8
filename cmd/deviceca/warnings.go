package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// warnings is admin.Options.Warnings: what was, or is, dated in the future.
func (s *system) warnings(ctx context.Context) []string {
	r := s.revocation.current.Load()
	return slices.Concat(r.crls.Warnings(), r.packs.Warnings(), s.rootWarnings(ctx, time.Now()))
}

// rootWarnings names the root CRLs that begin in the future. Only the root's key can mend them.
func (s *system) rootWarnings(ctx context.Context, now time.Time) (all []string) {
	for _, record := range s.service.Issuers() {
		if record.Role != "root" {
			continue
		}
		raw, err := s.store.Setting(ctx, crlSetting(record.Name))
		if err != nil { // none, or the database is away, which health says
			continue
		}
		if list, err := x509.ParseRevocationList(raw); err == nil && list.ThisUpdate.After(now) {
			all = append(all, fmt.Sprintf("the CRL of %s begins in the future (%s): the clock was ahead when it was signed; sign another one with: deviceca ca crl root",
				record.Name, list.ThisUpdate.Format(time.RFC3339)))
		}
	}
	return all
}
