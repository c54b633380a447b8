package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// warnings is admin.Options.Warnings: what was, or is, dated in the future, and root CRLs that end.
func (s *system) warnings(ctx context.Context) []string {
	r := s.revocation.current.Load()
	return slices.Concat(r.crls.Warnings(), r.packs.Warnings(), s.rootWarnings(ctx, time.Now()))
}

// rootCRLNotice is how long before its end a root's CRL is warned of: without it, many relying parties refuse every device.
const rootCRLNotice = 30 * 24 * time.Hour

// rootWarnings names the CRLs of roots that begin in the future, or end. Only the root's key can mend them.
func (s *system) rootWarnings(ctx context.Context, now time.Time) (all []string) {
	for _, record := range s.service.Issuers() {
		if !record.IsRoot() {
			continue
		}
		raw, err := s.store.Setting(ctx, crlSetting(record.Name))
		if err != nil { // none, or the database is away, which health says
			continue
		}
		list, err := x509.ParseRevocationList(raw)
		switch {
		case err != nil:
		case list.ThisUpdate.After(now):
			all = append(all, fmt.Sprintf("the CRL of %s begins in the future (%s): the clock was ahead when it was signed; sign another one with: deviceca ca crl root",
				record.Name, list.ThisUpdate.Format(time.RFC3339)))
		case list.NextUpdate.Before(now.Add(rootCRLNotice)):
			all = append(all, fmt.Sprintf("the CRL of %s ends at %s: without one, relying parties that check whole paths refuse every device; sign another one with: deviceca ca crl root",
				record.Name, list.NextUpdate.Format(time.RFC3339)))
		}
	}
	return all
}
