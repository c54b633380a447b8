package crl

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"iter"
	"log/slog"
	"math/big"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCA(t testing.TB, name string, key crypto.Signer) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte("key of " + name),
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// serial has random octets that index determines.
func serial(index uint64) ca.Serial {
	return ca.NewSerial(index, [12]byte{9, 8, 7, 6, 5, 4, 3, 2, 1, byte(index >> 16), byte(index >> 8), byte(index)})
}

// journal is a Source in memory.
type journal struct {
	mu       sync.Mutex
	number   int64
	head     int64
	next     uint64
	notAfter map[ca.Serial]time.Time
	revoked  map[ca.Serial]Change
	changes  []Change
	away     error
	gaps     []Gap
	read     int // entries and changes given out
}

func newJournal() *journal {
	return &journal{notAfter: map[ca.Serial]time.Time{}, revoked: map[ca.Serial]Change{}}
}

func (j *journal) issue(life time.Duration) ca.Serial {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := serial(j.next)
	j.next++
	j.notAfter[s] = time.Now().Add(life)
	return s
}

func (j *journal) revoke(s ca.Serial, reason int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.head++
	c := Change{Sequence: j.head, Entry: Entry{Serial: s, Revoked: time.Now(), Reason: reason}}
	j.revoked[s] = c
	j.changes = append(j.changes, c)
}

func (j *journal) release(s ca.Serial) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.head++
	delete(j.revoked, s)
	j.changes = append(j.changes, Change{Sequence: j.head, Entry: Entry{Serial: s, Revoked: time.Now()}, Released: true})
}

func (j *journal) setAway(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.away = err
}

func (j *journal) NextNumber(context.Context, string) (int64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.away != nil {
		return 0, j.away
	}
	j.number++
	return j.number, nil
}

func (j *journal) Head(context.Context, string) (int64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head, j.away
}

func (j *journal) Changes(_ context.Context, _ string, after, upTo int64) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		j.mu.Lock()
		from, _ := slices.BinarySearchFunc(j.changes, after+1, func(c Change, seq int64) int { return int(c.Sequence - seq) })
		all := slices.Clone(j.changes[from:])
		j.mu.Unlock()
		for _, c := range all {
			if c.Sequence <= upTo {
				j.read++
				if !yield(c, nil) {
					return
				}
			}
		}
	}
}

func (j *journal) Revoked(_ context.Context, _ string, q Query) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var all []Entry
		j.mu.Lock()
		for s, c := range j.revoked {
			if q.Match(s, j.notAfter[s], c.Sequence) {
				all = append(all, c.Entry)
			}
		}
		j.mu.Unlock()
		slices.SortFunc(all, func(a, b Entry) int { return bytes.Compare(a.Serial[:], b.Serial[:]) })
		for _, e := range all {
			j.read++
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (j *journal) Gaps(context.Context, string) ([]Gap, error) { return j.gaps, nil }

func (j *journal) Indexes(_ context.Context, _ string, now time.Time) (uint64, uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	oldest := j.next
	for s, end := range j.notAfter {
		if !end.Before(now) {
			oldest = min(oldest, s.Index())
		}
	}
	return oldest, j.next, nil
}

func seq(entries ...Entry) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// many makes n entries, as a ledger would, of several reasons.
func many(n int) iter.Seq2[Entry, error] {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return func(yield func(Entry, error) bool) {
		for i := range n {
			e := Entry{Serial: serial(uint64(i)), Revoked: begin.Add(time.Duration(i) * 7 * time.Second), Reason: []int{0, 1, 4, 5}[i%4]}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// cpu reports the processor time of the whole process from now to the end of
// the benchmark: on a busy machine it says more than the clock.
func cpu(b *testing.B) {
	spent := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := spent()
	b.Cleanup(func() { b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op") })
}
