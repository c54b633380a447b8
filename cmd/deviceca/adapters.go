package main

import "context"

// counts is what the status page counts.
func (s *system) counts(ctx context.Context) (map[string]int64, error) {
	certs, err := s.store.Counts(ctx)
	if err != nil {
		return nil, err
	}
	devices, err := s.store.CountDevices(ctx)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{"certificates": certs.Issued, "revoked": certs.Revoked, "active_certificates": certs.Active, "devices": 0}
	if counts["waiting_requests"], err = s.store.CountWaiting(ctx); err != nil {
		return nil, err
	}
	for _, d := range devices {
		counts["devices"] += d.Count
		counts[string(d.State)+"_devices"] += d.Count
	}
	return counts, nil
}
