package store

import (
	"context"
	"encoding/hex"

	"github.com/deviceca/deviceca/ca"
)

const policyColumns = "id, version, digest, first, last"

func scanPolicyWith(row scanner, more ...any) (v ca.PolicyVersion, err error) {
	var digest []byte
	var first, last int64
	err = row.Scan(append([]any{&v.ID, &v.Version, &digest, &first, &last}, more...)...)
	v.SHA256, v.First, v.Last = hex.EncodeToString(digest), fromMicros(first), fromMicros(last)
	return v, err
}

// RecordPolicy enters a policy that is in force; see ca.PolicyLedger.
func (s *Store) RecordPolicy(ctx context.Context, v ca.PolicyVersion, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	digest, err := hex.DecodeString(v.SHA256)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		t.record(ev)
		_, err := t.exec(`INSERT INTO policy (digest, version, source, first, last, turn) SELECT ?, ?, ?, ?, ?, coalesce(max(turn), 0) + 1 FROM policy WHERE true
			ON CONFLICT (digest) DO UPDATE SET last = excluded.last, turn = excluded.turn`,
			digest, v.Version, v.Source, micros(v.First), micros(v.Last))
		return err
	})
}

// PolicyVersion finds a policy; see ca.PolicyLedger.
func (s *Store) PolicyVersion(ctx context.Context, version string) (*ca.PolicyVersion, error) {
	var q where
	if version != "" {
		q.and("version = ?", version)
	}
	var source []byte
	v, err := scanPolicyWith(s.reads.QueryRowContext(ctx, "SELECT "+policyColumns+", source FROM policy"+q.String()+" ORDER BY turn DESC LIMIT 1", q.args...), &source)
	if err != nil {
		return nil, s.fault(err)
	}
	v.Source = source
	return &v, nil
}

// Policies lists the policies that were ever in force, without their sources, in the order in which they first were.
func (s *Store) Policies(ctx context.Context, after int64, limit int) ([]ca.PolicyVersion, error) {
	return list(ctx, s, "SELECT "+policyColumns+" FROM policy WHERE id > ? ORDER BY id LIMIT ?", []any{after, limit},
		func(row scanner) (ca.PolicyVersion, error) { return scanPolicyWith(row) })
}
