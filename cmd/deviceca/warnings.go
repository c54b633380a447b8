package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// warnings is admin.Options.Warnings: what was, or is, dated in the future, and root CRLs that end.
func (s *system) warnings(ctx context.Context) []string {
	r := s.revocation.current.Load()
	return slices.Concat(r.crls.Warnings(), r.packs.Warnings(), s.rootWarnings(ctx, time.Now()), s.quarantineWarnings())
}

// quarantineWarnings tells of a quarantine CA that stands below the root that relying parties trust, as in homes of old.
func (s *system) quarantineWarnings() (all []string) {
	for _, q := range s.service.LiveGenerations("quarantine") {
		cert, err := x509.ParseCertificate(q.Cert)
		if err != nil || q.Stage != ca.StageActive {
			continue
		}
		for _, raw := range s.service.Live("root") {
			if root, err := x509.ParseCertificate(raw); err == nil && cert.CheckSignatureFrom(root) == nil {
				all = append(all, q.Name+" stands below the root of relying parties: those that do not apply the extended key usage of a CA accept devices in quarantine; "+
					"give it a root of its own with: deviceca ca rotate quarantine")
			}
		}
	}
	return all
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
