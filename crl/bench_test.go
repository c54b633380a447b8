package crl

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkMillion builds and signs a complete list of a million entries in a file.
func BenchmarkMillion(b *testing.B) {
	key := newKey(b)
	issuer := newCA(b, "issuing-1", key)
	path := filepath.Join(b.TempDir(), "x.crl")
	b.ReportAllocs()
	cpu(b)
	for b.Loop() {
		b.SetBytes(buildFile(b, path, template(issuer), key, 1_000_000).Size)
	}
}

// BenchmarkReplace is what the disk adds to it: a new file, synced and renamed.
func BenchmarkReplace(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x")
	for b.Loop() {
		if err := replace(path, func(f *os.File) error { _, err := f.Write(make([]byte, 4096)); return err }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDelta is one revocation with 100 changes since the base, by how many
// are revoked in all: read the journal, sign and replace the whole delta and the partition's.
func BenchmarkDelta(b *testing.B) {
	for _, revoked := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("revoked=%d", revoked), func(b *testing.B) {
			h := newHouse(b, b.TempDir(), func(o *Options) { o.Partition = 0 })
			j := h.j
			end := time.Now().Add(time.Hour)
			for range revoked {
				s := serial(j.next)
				j.next++
				j.notAfter[s] = end
				j.head++
				j.revoked[s] = Change{Sequence: j.head, Entry: Entry{Serial: s, Revoked: end}}
			}
			if err := h.p.Publish(b.Context(), ""); err != nil {
				b.Fatal(err)
			}
			for range 99 {
				j.revoke(j.issue(time.Hour), 1)
			}
			hundredth := j.issue(time.Hour)
			reason := 0
			cpu(b)
			for b.Loop() {
				reason = reason%5 + 1
				j.revoke(hundredth, reason)
				h.p.issuers[0].checked = time.Now().Truncate(time.Second) // the journal in memory scans for Indexes
				if err := h.p.round(b.Context(), h.p.issuers[0], false); err != nil {
					b.Fatal(err)
				}
			}
			if l := h.list(Whole, true); l.Count != 100 {
				b.Errorf("%d entries", l.Count)
			}
		})
	}
}

// BenchmarkParse reads a list of a million entries.
func BenchmarkParse(b *testing.B) {
	key := newKey(b)
	issuer := newCA(b, "issuing-1", key)
	raw, err := Create(template(issuer), key, many(1_000_000))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	cpu(b)
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
