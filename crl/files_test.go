package crl

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestNewer(t *testing.T) {
	h := newHouse(t, t.TempDir(), nil)
	h.j.revoke(h.j.issue(time.Hour), 1)
	if err := h.p.Publish(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	files := Files{Dir: h.dir, Resolve: func(name string) string {
		if name == "issuing" {
			return "issuing-1"
		}
		return name
	}}
	whole := h.list(Whole, false)
	for _, c := range []struct {
		path  string
		since time.Time
		limit int
		want  *List
		err   error
	}{
		{"issuing-1.crl", time.Time{}, len(whole.Raw), whole, nil},
		{"issuing.crl", whole.ThisUpdate.Add(-time.Second), len(whole.Raw), whole, nil},
		{"issuing-1.crl", whole.ThisUpdate, len(whole.Raw), nil, nil},
		{"issuing-1.crl", whole.ThisUpdate.Add(time.Second), 0, nil, nil},
		{"issuing-1.crl", time.Time{}, len(whole.Raw) - 1, nil, ErrTooLong},
		{"issuing-1-delta.crl", time.Time{}, 1 << 20, h.list(Whole, true), nil},
		{"issuing-1/0.crl", time.Time{}, 1 << 20, h.list(0, false), nil},
		{"issuing-1/9.crl", time.Time{}, 1 << 20, nil, nil},
		{"other-1.crl", time.Time{}, 1 << 20, nil, nil},
		{"../issuing-1.crl", time.Time{}, 1 << 20, nil, nil},
		{"issuing-1.json", time.Time{}, 1 << 20, nil, nil},
	} {
		raw, err := files.Newer(c.path, c.since, int64(c.limit))
		if !errors.Is(err, c.err) || (raw == nil) != (c.want == nil) || c.want != nil && !bytes.Equal(raw, c.want.Raw) {
			t.Errorf("%s since %s, at most %d: %d octets, %v", c.path, c.since, c.limit, len(raw), err)
		}
	}
}
