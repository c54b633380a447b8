package publisher

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deviceca/deviceca/pack"
)

// ledger is a Source and a Certifier in memory.
type ledger struct {
	mu           sync.Mutex
	t            testing.TB
	key          *ecdsa.PrivateKey
	cert         *x509.Certificate
	away         error // of the token
	gone         error // of the database
	sequence     int64
	changes      []Change
	revoked      map[uint64]bool
	oldest, next uint64
	issued       int
	life         time.Duration
	read         int // changes and indexes given out
}

func newLedger(t testing.TB) *ledger {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Issuing CA 1"}, NotBefore: time.Now().AddDate(-1, 0, 0),
		NotAfter: time.Now().AddDate(20, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte("issuing")}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &ledger{t: t, key: key, cert: cert, revoked: map[uint64]bool{}, next: 1000, life: 30 * 24 * time.Hour}
}

func (l *ledger) change(index uint64, released bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes = append(l.changes, Change{int64(len(l.changes) + 1), index, released})
	l.revoked[index] = !released
}

func (l *ledger) NextSequence(context.Context, string) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sequence++
	return l.sequence, l.gone
}

func (l *ledger) Head(context.Context, string) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.changes)), l.gone
}

func (l *ledger) Changes(_ context.Context, _ string, after, upTo int64) iter.Seq2[Change, error] {
	l.mu.Lock()
	defer l.mu.Unlock()
	changes := slices.Clone(l.changes)
	return func(yield func(Change, error) bool) {
		for _, c := range slices.Backward(changes) { // in any order
			if c.Sequence > after && c.Sequence <= upTo {
				l.read++
				if !yield(c, nil) {
					return
				}
			}
		}
	}
}

func (l *ledger) Revoked(_ context.Context, _ string, from uint64) iter.Seq2[uint64, error] {
	return func(yield func(uint64, error) bool) {
		for _, index := range slices.Sorted(maps.Keys(l.revoked)) {
			if l.revoked[index] && index >= from {
				l.read++
				if !yield(index, nil) {
					return
				}
			}
		}
	}
}

func (l *ledger) Indexes(context.Context, string, time.Time) (uint64, uint64, error) {
	return l.oldest, l.next, l.gone
}

func (l *ledger) IssueSigner(_ context.Context, _ string, pub crypto.PublicKey) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away != nil {
		return nil, l.away
	}
	l.issued++
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(int64(1000 + l.issued)), Subject: pkix.Name{CommonName: "packs"}, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(l.life), KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: []asn1.ObjectIdentifier{pack.SigningEKU()}}
	return x509.CreateCertificate(rand.Reader, tmpl, l.cert, pub, l.key)
}

// site is a publisher with its handler.
type site struct {
	*Publisher
	*ledger
	handler http.Handler
}

func open(t testing.TB, l *ledger, dir string, edit func(*Options)) *site {
	t.Helper()
	opts := Options{Source: l, Certifier: l, Dir: dir, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if edit != nil {
		edit(&opts)
	}
	p, err := New(opts, Issuer{"issuing-1", l.cert})
	if err != nil {
		t.Fatal(err)
	}
	return &site{p, l, p.Handler(HandlerOptions{Prefix: "/pack", Resolve: func(name string) string {
		if name == "issuing" {
			return "issuing-1"
		}
		return name
	}})}
}

func (s *site) round(t testing.TB) error {
	t.Helper()
	return s.Refresh(t.Context(), "issuing-1")
}

func (s *site) get(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w
}

func (s *site) full(t testing.TB) *pack.Pack {
	t.Helper()
	w := s.get("/pack/issuing.cbor")
	if w.Code != 200 || w.Header().Get("Content-Type") != contentType {
		t.Fatalf("full pack: %d %v", w.Code, w.Header())
	}
	p, err := pack.Verify(w.Body.Bytes(), pack.Options{Issuer: s.cert})
	if err != nil {
		t.Fatal(err)
	}
	if hash := p.Hash(); w.Header().Get(StateHeader) != hex.EncodeToString(hash[:]) {
		t.Errorf("the header says state %s", w.Header().Get(StateHeader))
	}
	return p
}

// follow applies the delta from p; p itself if there is nothing new.
func (s *site) follow(t testing.TB, p *pack.Pack) *pack.Pack {
	t.Helper()
	hash := p.Hash()
	w := s.get("/pack/issuing-1/delta/" + hex.EncodeToString(hash[:]) + ".cbor")
	switch w.Code {
	case 204:
		return p
	case 200:
		next, err := p.Apply(w.Body.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	t.Fatalf("delta: %d %s", w.Code, w.Body)
	return nil
}

func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dir := newLedger(t), t.TempDir()
		s := open(t, l, dir, nil)
		if w := s.get("/pack/issuing-1.cbor"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("before the first: %d", w.Code)
		}
		l.change(7, false)
		check := func(p *pack.Pack, index uint64, want pack.Status) {
			t.Helper()
			if got := p.Index(index); got != want {
				t.Errorf("%d is %s, want %s", index, got, want)
			}
		}
		if err := s.round(t); err != nil {
			t.Fatal(err)
		}
		first := s.full(t)
		check(first, 7, pack.Revoked)
		check(first, 8, pack.Good)
		check(first, 1000, pack.Unknown)
		if got := s.follow(t, first); got != first {
			t.Error("there is something new")
		}
		// Nothing changes: no state is made.
		time.Sleep(30 * time.Minute)
		if err := s.round(t); err != nil || l.sequence != 1 {
			t.Errorf("%v; %d sequences", err, l.sequence)
		}
		l.change(8, false)
		l.change(9, false)
		l.change(8, true)
		if err := s.round(t); err != nil {
			t.Fatal(err)
		}
		second := s.follow(t, first)
		check(second, 7, pack.Revoked)
		check(second, 8, pack.Good)
		check(second, 9, pack.Revoked)
		if s.full(t).Hash() != first.Hash() {
			t.Error("a full pack came before its time")
		}
		// The universe grows with time alone.
		l.next = 1001
		time.Sleep(time.Hour)
		if err := s.round(t); err != nil {
			t.Fatal(err)
		}
		third := s.follow(t, second)
		check(third, 1000, pack.Good)
		if s.follow(t, first).Hash() != third.Hash() {
			t.Error("two ways lead to two states")
		}
		// A day later there is a full pack, and what has expired leaves.
		l.oldest = 8
		time.Sleep(24 * time.Hour)
		if err := s.round(t); err != nil {
			t.Fatal(err)
		}
		day := s.full(t)
		check(day, 7, pack.Expired)
		check(day, 9, pack.Revoked)
		if day.Base() != first.Hash() {
			t.Error("the chain of full packs is broken")
		}
		if got := s.follow(t, first); got.Hash() != day.Hash() || got.Floor().Epoch != 8 {
			t.Errorf("from yesterday's pack: %+v", got.Header())
		}
		if l.issued != 1 {
			t.Errorf("%d signer certificates", l.issued)
		}

		// A restart: full packs are parents still, states between them are not.
		l.change(11, false)
		s = open(t, l, dir, nil)
		if err := s.round(t); err != nil {
			t.Fatal(err)
		}
		check(s.follow(t, first), 11, pack.Revoked)
		check(s.follow(t, day), 11, pack.Revoked)
		hash := second.Hash()
		if w := s.get("/pack/issuing/delta/" + hex.EncodeToString(hash[:]) + ".cbor"); w.Code != 404 || !strings.Contains(w.Body.String(), "/pack/issuing-1.cbor") {
			t.Errorf("a state that is gone: %d %s", w.Code, w.Body)
		}
		if raw, err := os.ReadFile(filepath.Join(dir, "issuing-1.cbor")); err != nil || len(raw) == 0 {
			t.Error(err)
		}
	})
}

// TestCost: what a change costs does not follow what was revoked before.
func TestCost(t *testing.T) {
	l := newLedger(t)
	l.next = 1 << 20
	for index := range uint64(5000) {
		l.change(index*100, false)
	}
	s := open(t, l, t.TempDir(), nil)
	if err := s.round(t); err != nil {
		t.Fatal(err)
	}
	l.read = 0
	l.change(1, false)
	if err := s.round(t); err != nil || l.read != 1 {
		t.Errorf("%v; %d lines were read for one change", err, l.read)
	}
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(t)
		s := open(t, l, t.TempDir(), func(o *Options) { o.Poll = 10 * time.Second }) // a month goes by
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		time.Sleep(time.Second)
		first := s.full(t)
		// The token is away past the renewal of the signer: states get shorter, and end with it.
		l.mu.Lock()
		l.away = errors.New("token away")
		l.mu.Unlock()
		time.Sleep(29 * 24 * time.Hour)
		late := s.full(t)
		if end := late.Header().NextUpdate; end.After(time.Now().Add(25*time.Hour)) || !end.After(time.Now()) {
			t.Errorf("it ends at %s, now is %s", end, time.Now())
		}
		time.Sleep(3 * 24 * time.Hour)
		if s.full(t).Header().NextUpdate.After(time.Now()) {
			t.Error("a state outlives its signer")
		}
		l.mu.Lock()
		l.away = nil
		l.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if !s.full(t).Header().NextUpdate.After(time.Now()) || l.issued != 2 {
			t.Errorf("no recovery; %d signers", l.issued)
		}
		// The database is away, then a revocation comes within a poll.
		l.mu.Lock()
		l.gone = errors.New("database away")
		l.mu.Unlock()
		time.Sleep(time.Minute)
		l.mu.Lock()
		l.gone = nil
		l.mu.Unlock()
		time.Sleep(2 * time.Minute)
		before := s.full(t)
		l.change(5, false)
		time.Sleep(11 * time.Second)
		if s.follow(t, before).Index(5) != pack.Revoked {
			t.Error("a revocation is not in the delta after a poll")
		}
		if first.Floor().Compare(before.Floor()) >= 0 {
			t.Error("no progress")
		}
		stop()
		running.Wait()
	})
}

func TestGuards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dir := newLedger(t), t.TempDir()
		s := open(t, l, dir, func(o *Options) { o.Keep, o.Recent = 2, 1 })
		var full []*pack.Pack
		for range 4 {
			if err := s.Publish(t.Context(), "issuing-1"); err != nil {
				t.Fatal(err)
			}
			full = append(full, s.full(t))
			time.Sleep(time.Second)
			l.change(uint64(len(full)), false)
		}
		files, err := os.ReadDir(filepath.Join(dir, "issuing-1"))
		if err != nil || len(files) != 2 {
			t.Errorf("%d files are kept: %v", len(files), err)
		}
		s.follow(t, full[2])
		hash := full[0].Hash()
		if w := s.get("/pack/issuing/delta/" + hex.EncodeToString(hash[:]) + ".cbor"); w.Code != 404 {
			t.Errorf("the first of four is a parent: %d", w.Code)
		}
		if err := s.Publish(t.Context(), "other"); !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
		// A counter that went back: nothing that was published may be contradicted.
		l.sequence = 1
		if err := s.round(t); err == nil || !strings.Contains(err.Error(), "went back") {
			t.Errorf("a sequence of the past: %v", err)
		}
		// A clock that went back.
		l.sequence = 10
		s.opts.Now = func() time.Time { return time.Now().Add(-time.Hour) }
		if err := s.Publish(t.Context(), ""); err != nil {
			t.Errorf("a clock of the past: %v", err)
		}
		// What was tampered with on disk is not offered.
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(dir, "issuing-1", f.Name()), []byte("tampered"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s = open(t, l, dir, nil)
		if err := s.round(t); err != nil {
			t.Fatal(err)
		}
		s.full(t)
	})
}

func TestHandler(t *testing.T) {
	l := newLedger(t)
	s := open(t, l, t.TempDir(), nil)
	if err := s.round(t); err != nil {
		t.Fatal(err)
	}
	good := s.get("/pack/issuing-1.cbor")
	for name, c := range map[string]struct {
		method, path, header, value string
		code                        int
	}{
		"alias":         {"GET", "/pack/issuing.cbor", "", "", 200},
		"head":          {"HEAD", "/pack/issuing.cbor", "", "", 200},
		"not modified":  {"GET", "/pack/issuing.cbor", "If-None-Match", good.Header().Get("ETag"), 304},
		"unmodified":    {"GET", "/pack/issuing.cbor", "If-Modified-Since", good.Header().Get("Last-Modified"), 304},
		"modified":      {"GET", "/pack/issuing.cbor", "If-Modified-Since", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), 200},
		"to come":       {"GET", "/pack/issuing.cbor", "If-Modified-Since", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 200},
		"range":         {"GET", "/pack/issuing.cbor", "Range", "bytes=0-9", 206},
		"post":          {"POST", "/pack/issuing.cbor", "", "", 405},
		"no such CA":    {"GET", "/pack/root.cbor", "", "", 404},
		"no such path":  {"GET", "/pack/issuing-1/../x", "", "", 404},
		"no hash":       {"GET", "/pack/issuing-1/delta/xyz.cbor", "", "", 404},
		"upper case":    {"GET", "/pack/issuing-1/delta/" + strings.Repeat("A", 64) + ".cbor", "", "", 404},
		"another state": {"GET", "/pack/issuing-1/delta/" + strings.Repeat("a", 64) + ".cbor", "", "", 404},
		"short":         {"GET", "/", "", "", 404},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code != c.code {
			t.Errorf("%s: %d, want %d", name, w.Code, c.code)
		}
	}
	if !strings.HasPrefix(good.Header().Get("Cache-Control"), "public, max-age=300") {
		t.Errorf("%v", good.Header())
	}
}

// After a restore: the sequence is far above all before, the first index may be lower, and the
// directory is empty. Whoever holds an older pack takes the new full one, and keeps its floor.
func TestAfterRestore(t *testing.T) {
	l := newLedger(t)
	l.oldest, l.next = 5000, 9000
	s := open(t, l, t.TempDir(), nil)
	if err := s.round(t); err != nil {
		t.Fatal(err)
	}
	old := s.full(t)
	if h := old.Header(); h.Epoch != 5000 || h.First != 5000 {
		t.Fatalf("before: %+v", h)
	}

	l.sequence, l.oldest, l.next = 1<<51, 4000, 1<<40
	s = open(t, l, t.TempDir(), nil)
	if err := s.round(t); err != nil {
		t.Fatal(err)
	}
	first := s.full(t)
	if first.Floor().Compare(old.Floor()) <= 0 {
		t.Errorf("floor %+v after %+v", first.Floor(), old.Floor())
	}
	if hash := old.Hash(); s.get("/pack/issuing-1/delta/"+hex.EncodeToString(hash[:])+".cbor").Code != http.StatusNotFound {
		t.Error("there is a delta from a state of before the restore")
	}
	l.change(4100, false)
	if err := s.round(t); err != nil {
		t.Fatal(err)
	}
	next := s.follow(t, first)
	if next.Header().Epoch != first.Header().Epoch || next.Index(4100) != pack.Revoked {
		t.Errorf("a delta later: %+v, %s", next.Header(), next.Index(4100))
	}
	l.oldest = 4050 // with a full pack the first index rises, and an epoch begins
	if err := s.Publish(t.Context(), "issuing-1"); err != nil {
		t.Fatal(err)
	}
	if last := s.full(t); last.Header().First != 4050 || last.Header().Epoch <= next.Header().Epoch || last.Header().Epoch != last.Header().Sequence {
		t.Errorf("a full pack later: %+v", last.Header())
	}
}

// serialOf is a serial with an issuance index.
func serialOf(index byte) []byte {
	return append([]byte{1, 0, 0, 0, 0, 0, index}, make([]byte, 12)...)
}

// A state begins before it was made, so that a device whose clock is slow takes it; its file is dated when it was made.
func TestBackdate(t *testing.T) {
	l := newLedger(t)
	s := open(t, l, t.TempDir(), func(o *Options) { o.Backdate = func() time.Duration { return 40 * time.Second } })
	for i := range 3 {
		l.change(uint64(i), false)
		before := s.get("/pack/issuing.cbor").Header().Get("Last-Modified")
		if err := s.Publish(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		p := s.full(t)
		if _, err := p.Status(serialOf(0), time.Now().Add(-30*time.Second)); errors.As(err, new(*pack.FreshnessError)) {
			t.Error(err)
		}
		if left := time.Until(p.Header().NextUpdate); left < 48*time.Hour-time.Minute {
			t.Errorf("backdating took from the end: %s left", left)
		}
		if before != "" {
			r := httptest.NewRequest("GET", "/pack/issuing.cbor", nil)
			r.Header.Set("If-Modified-Since", before)
			w := httptest.NewRecorder()
			if s.handler.ServeHTTP(w, r); w.Code != 200 {
				t.Errorf("another pack of the same second: %d", w.Code)
			}
		}
	}
	s = open(t, l, t.TempDir(), func(o *Options) { o.Backdate = func() time.Duration { return 24 * time.Hour } })
	if err := s.round(t); err != nil { // no earlier than the signer's certificate
		t.Fatal(err)
	}
	s.full(t)
}

// A clock that was ahead leaves a pack that begins in the future, and in which certificates have expired that are valid. It is made
// again, at the start, while running and by hand, and whoever took it takes the new one.
func TestClockCameBack(t *testing.T) {
	for name, c := range map[string]struct{ restart, byHand bool }{"at the start": {true, false}, "while running": {false, false}, "by hand": {true, true}} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t)
			l.life = 3 * 365 * 24 * time.Hour
			l.change(500, false)
			var ahead time.Duration
			clock := func(o *Options) { o.Now = func() time.Time { return time.Now().Add(ahead) } }
			dir := t.TempDir()
			s := open(t, l, dir, clock)
			round := func() {
				t.Helper()
				if err := s.round(t); err != nil {
					t.Fatal(err)
				}
			}
			round()
			ahead, l.oldest = 400*24*time.Hour, 900
			round()
			future := s.full(t)
			if len(s.Warnings()) != 0 || future.Index(500) != pack.Expired {
				t.Fatal(s.Warnings(), future.Index(500))
			}
			ahead, l.oldest = 0, 0
			if c.restart {
				s = open(t, l, dir, clock)
			}
			l.away = errors.New("the token is away")
			if err := s.round(t); c.restart && err == nil {
				t.Error("no error without a token")
			}
			l.away = nil
			if c.byHand {
				if err := s.Publish(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
			}
			round()
			now := s.full(t)
			if h := now.Header(); h.ThisUpdate.After(time.Now()) || h.First != 0 || now.Index(500) != pack.Revoked {
				t.Errorf("%+v, %v", h, now.Index(500))
			}
			if now.Floor().Compare(future.Floor()) <= 0 {
				t.Errorf("floor %+v after %+v: who took the one from the future refuses it", now.Floor(), future.Floor())
			}
			if len(s.Warnings()) != 1 {
				t.Error(s.Warnings())
			}
			hash := future.Hash()
			if code := s.get("/pack/issuing/delta/" + hex.EncodeToString(hash[:]) + ".cbor").Code; code != 404 {
				t.Errorf("a delta from a state of the future: %d", code)
			}
			l.change(600, false)
			round()
			if next := s.follow(t, now); next.Index(600) != pack.Revoked {
				t.Error("the delta after")
			}
			l.oldest = 100 // an epoch begins
			if err := s.Publish(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			last := s.full(t)
			if last.Floor().Compare(now.Floor()) <= 0 || last.Header().First != 100 {
				t.Errorf("%+v after %+v", last.Header(), now.Header())
			}
		})
	}
}
