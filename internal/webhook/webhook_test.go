package webhook

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/audit"
)

const secret = "0123456789abcdef0123456789abcdef"

// memory is a log. fail, if set, is what every call returns.
type memory struct {
	mu        sync.Mutex
	events    []Event
	cursor    int64      // -1: never kept
	instances []Instance // nil: one
	signed    *audit.Checkpoint
	fail      error
}

func newMemory() *memory { return &memory{cursor: -1} }

// add appends n events of a kind.
func (m *memory) add(kind ca.EventKind, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		m.events = append(m.events, Event{int64(len(m.events) + 1), ca.Event{Time: time.Now(), Kind: kind, Actor: "admin:test"}})
	}
}

func (m *memory) Events(_ context.Context, after int64, limit int) ([]Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := m.events[min(after, int64(len(m.events))):]
	return slices.Clone(rest[:min(limit, len(rest))]), m.fail
}

func (m *memory) Instances(context.Context) ([]Instance, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.instances == nil {
		return []Instance{{ID: "first", FirstEvent: 1}}, m.fail
	}
	return m.instances, m.fail
}

func (m *memory) Head(context.Context) (*audit.Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.signed, m.fail
}

// sign gives the log a newer head.
func (m *memory) sign(sequence uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signed = &audit.Checkpoint{Sequence: sequence, Head: [32]byte{byte(sequence)}, Time: time.Unix(1e9, 0).UTC(), Key: "audit", Signature: []byte{1}}
}

func (m *memory) Newest(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.events)), m.fail
}

func (m *memory) Cursor(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cursor < 0 {
		return 0, errors.Join(m.fail, ca.ErrNoRecord)
	}
	return m.cursor, m.fail
}

func (m *memory) SetCursor(_ context.Context, id int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail == nil {
		m.cursor = id
	}
	return m.fail
}

func (m *memory) kept() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursor
}

// receiver checks every post and remembers the IDs. answer, if set, is asked
// first, with the number of the post from 0: false means it has answered itself
// and took nothing.
type receiver struct {
	t      *testing.T
	answer func(n int, w http.ResponseWriter, r *http.Request) bool

	mu        sync.Mutex
	posts     int
	taken     [][]int64
	instances []string // of the posts taken
	heads     []uint64
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // it broke off
	}
	r.mu.Lock()
	n := r.posts
	r.posts++
	r.mu.Unlock()
	if err := Verify(secret, req.Header, body, time.Now(), time.Minute); err != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s with %v: %v", req.Method, req.Header, err)
	}
	if r.answer != nil && !r.answer(n, w, req) {
		return
	}
	var post struct {
		Instance string
		Events   []Event
		Head     *audit.Checkpoint
	}
	if err := json.Unmarshal(body, &post); err != nil || post.Events == nil || len(post.Events) == 0 && post.Head == nil || len(post.Events) > MaxEvents {
		r.t.Errorf("%d events, head %v, %v", len(post.Events), post.Head, err)
	}
	found := 0
	if _, err := audit.ReadHeads(bytes.NewReader(body), func(audit.Checkpoint) error { found++; return nil }); err != nil || found == 1 != (post.Head != nil) {
		r.t.Errorf("audit verify --head would read %d heads of %s, %v", found, body, err)
	}
	var ids []int64
	for _, e := range post.Events {
		ids = append(ids, e.ID)
	}
	if post.Instance == "" || req.Header.Get(InstanceHeader) != post.Instance {
		r.t.Errorf("instance %q in the body, %q in the header", post.Instance, req.Header.Get(InstanceHeader))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken = append(r.taken, ids)
	r.instances = append(r.instances, post.Instance)
	if post.Head != nil {
		r.heads = append(r.heads, post.Head.Sequence)
	}
	w.WriteHeader(http.StatusNoContent)
}

// ids are all IDs taken, in order of arrival.
func (r *receiver) ids() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.taken...)
}

func (r *receiver) seenHeads() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.heads)
}

func (r *receiver) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.posts
}

func options(log Log, url string) Options {
	return Options{Log: log, URL: url, Secret: secret, Poll: 5 * time.Millisecond, MinDelay: 5 * time.Millisecond, MaxDelay: 20 * time.Millisecond}
}

// follow runs a follower until stop is called.
func follow(t *testing.T, o Options) (f *Follower, stop func()) {
	t.Helper()
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return f, stop
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%s does not come about", what)
		}
	}
}

func upTo(from, to int64) (ids []int64) {
	for id := from; id <= to; id++ {
		ids = append(ids, id)
	}
	return ids
}

// The newest head goes along with the next post, or by itself; once, until it moves.
func TestHeads(t *testing.T) {
	log, r := newMemory(), &receiver{t: t}
	srv := httptest.NewServer(r)
	defer srv.Close()
	log.sign(7)
	_, stop := follow(t, options(log, srv.URL))
	seen := func(n int) func() bool { return func() bool { return len(r.seenHeads()) == n } }
	eventually(t, "the first head", seen(1))
	log.add(ca.EventIssued, 3)
	eventually(t, "delivery", func() bool { return log.kept() == 3 })
	log.sign(8)
	log.sign(9)
	eventually(t, "a newer head", func() bool { heads := r.seenHeads(); return len(heads) > 0 && heads[len(heads)-1] == 9 })
	log.add(ca.EventIssued, 1)
	eventually(t, "delivery", func() bool { return log.kept() == 4 })
	stop()
	heads := r.seenHeads()
	if heads[0] != 7 || !slices.IsSorted(heads) || len(slices.Compact(slices.Clone(heads))) != len(heads) || len(heads) > 3 {
		t.Errorf("heads %v", heads)
	}
	if got := r.ids(); !slices.Equal(got, upTo(1, 4)) {
		t.Errorf("events %v", got)
	}
}

// Everything of the kinds asked for from the first run on, in order, in
// batches; and after a restart what came in between.
func TestFollow(t *testing.T) {
	log, r := newMemory(), &receiver{t: t}
	srv := httptest.NewServer(r)
	defer srv.Close()
	log.add(ca.EventIssued, 5) // before the webhook was enabled
	f, stop := follow(t, options(log, srv.URL))
	eventually(t, "the first cursor", func() bool { return log.kept() == 5 })
	log.add(ca.EventDeviceAdded, 3)
	log.add(ca.EventRequestPending, 250)
	log.add(ca.EventAdminAdded, 2)
	log.add(ca.EventRevoked, 1)
	eventually(t, "delivery", func() bool { return log.kept() == 261 })
	stop()
	want := append(upTo(9, 258), 261)
	if got := r.ids(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if s := f.Stats(); s.Delivered != 251 || s.Failures != 0 || s.Lag != 0 {
		t.Errorf("stats %+v", s)
	}

	log.add(ca.EventIssued, 2)
	o := options(log, srv.URL)
	o.Events = []string{string(ca.EventIssued)}
	_, stop = follow(t, o)
	log.add(ca.EventRevoked, 1)
	log.add(ca.EventIssued, 1)
	eventually(t, "what came in between", func() bool { return log.kept() == 265 })
	stop()
	if got := r.ids()[len(want):]; !slices.Equal(got, []int64{262, 263, 265}) {
		t.Errorf("after a restart: %v", got)
	}
}

// Events of other kinds alone do not make the cursor stand still for ever.
func TestSkips(t *testing.T) {
	log := newMemory()
	log.cursor = 0
	log.add(ca.EventDeviceAdded, keepSkipped+page)
	_, stop := follow(t, options(log, "http://127.0.0.1:1/"))
	defer stop()
	eventually(t, "the cursor", func() bool { return log.kept() >= keepSkipped })
}

// Whatever the receiver does wrong, events come again until it takes them,
// none is lost and none overtakes another.
func TestFailures(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	status := func(code int) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n < 3 {
				w.Header().Set("Location", elsewhere.URL)
				w.WriteHeader(code)
			}
			return n >= 3
		}
	}
	tests := []struct {
		name   string
		answer func(n int, w http.ResponseWriter, r *http.Request) bool
	}{
		{"500", status(500)}, {"503", status(503)}, {"404", status(404)}, {"401", status(401)}, {"302", status(302)}, {"307", status(307)}, {"308", status(308)},
		{"slow", func(n int, _ http.ResponseWriter, r *http.Request) bool {
			if n < 3 {
				<-r.Context().Done()
			}
			return n >= 3
		}},
		{"cut off", func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n < 3 {
				panic(http.ErrAbortHandler)
			}
			return true
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log, r := newMemory(), &receiver{t: t, answer: tt.answer}
			log.cursor = 0
			srv := httptest.NewServer(r)
			defer srv.Close()
			log.add(ca.EventIssued, 150)
			o := options(log, srv.URL)
			o.Timeout = 100 * time.Millisecond
			if tt.name != "slow" {
				o.Timeout = 10 * time.Second
			}
			f, stop := follow(t, o)
			eventually(t, "a failure", func() bool { return f.Stats().Failures > 0 })
			if log.kept() == 150 {
				t.Error("nothing was refused")
			}
			eventually(t, "delivery", func() bool { return log.kept() == 150 })
			stop()
			if got := r.ids(); !slices.Equal(got, upTo(1, 150)) {
				t.Errorf("got %v", got)
			}
			if s := f.Stats(); s.Failures < 3 || s.Delivered != 150 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// An answer that is lost brings the same events again, whole and in order; a
// receiver tells them by their IDs.
func TestDuplicates(t *testing.T) {
	log, r := newMemory(), &receiver{t: t}
	log.cursor = 0
	lost := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.ServeHTTP(httptest.NewRecorder(), req)
		if r.tried() == 1 {
			panic(http.ErrAbortHandler) // it took them, and nobody knows
		}
	}))
	defer lost.Close()
	log.add(ca.EventIssued, 120)
	_, stop := follow(t, options(log, lost.URL))
	eventually(t, "delivery", func() bool { return log.kept() == 120 })
	stop()
	if got := r.ids(); !slices.Equal(got, append(upTo(1, 100), upTo(1, 120)...)) {
		t.Errorf("got %v", got)
	}
}

// Nobody listens for a while, and nothing is lost; lag shows it.
func TestOutage(t *testing.T) {
	log, r := newMemory(), &receiver{t: t}
	log.cursor = 0
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	log.add(ca.EventIssued, 3)
	f, stop := follow(t, options(log, "http://"+addr))
	defer stop()
	eventually(t, "trouble", func() bool { s := f.Stats(); return s.Failures >= 2 && s.Lag > 0 })
	if log.kept() != 0 {
		t.Error("the cursor moved")
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: r}}
	srv.Start()
	defer srv.Close()
	eventually(t, "delivery", func() bool { return log.kept() == 3 && f.Stats().Lag == 0 })
	if got := r.ids(); !slices.Equal(got, upTo(1, 3)) {
		t.Errorf("got %v", got)
	}
}

// A ledger that is away, from the very start: it is waited for.
func TestLogAway(t *testing.T) {
	log, r := newMemory(), &receiver{t: t}
	srv := httptest.NewServer(r)
	defer srv.Close()
	log.fail = errors.New("the database is away")
	o := options(log, srv.URL)
	var said lockedBuffer
	o.Logger = slog.New(slog.NewTextHandler(&said, nil))
	_, stop := follow(t, o)
	defer stop()
	eventually(t, "a complaint", func() bool { return strings.Contains(said.String(), "cannot read where it stopped") })
	log.mu.Lock()
	log.fail = nil
	log.mu.Unlock()
	eventually(t, "the cursor", func() bool { return log.kept() == 0 })
	log.add(ca.EventIssued, 1)
	eventually(t, "delivery", func() bool { return log.kept() == 1 })
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestTLS(t *testing.T) {
	log, r := newMemory(), &receiver{t: t}
	log.cursor = 0
	srv := httptest.NewUnstartedServer(r)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.StartTLS()
	defer srv.Close()
	log.add(ca.EventIssued, 1)
	f, stop := follow(t, options(log, srv.URL))
	eventually(t, "a refusal", func() bool { return f.Stats().Failures > 0 })
	stop()
	if r.tried() > 0 {
		t.Error("events went to a server that nobody vouches for")
	}
	o := options(log, srv.URL)
	o.Roots = x509.NewCertPool()
	o.Roots.AddCert(srv.Certificate())
	_, stop = follow(t, o)
	defer stop()
	eventually(t, "delivery", func() bool { return log.kept() == 1 })
}

// Pauses double from a second to five minutes, each shortened by up to half.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := New(Options{Log: newMemory(), URL: "https://hooks.example/", Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var tries []time.Time
		f.insist(ctx, "x", func() error {
			if tries = append(tries, time.Now()); len(tries) == 14 {
				cancel()
			}
			return errors.New("no")
		})
		for i, most := 1, time.Second; i < len(tries); i, most = i+1, min(2*most, 5*time.Minute) {
			if waited := tries[i].Sub(tries[i-1]); waited > most || waited < most/2 {
				t.Errorf("pause %d: %s, want %s to %s", i, waited, most/2, most)
			}
		}
	})
}

func TestVerify(t *testing.T) {
	now, body := time.Unix(1893456000, 0), []byte(`{"events":[]}`)
	// openssl's word: printf '%s' '1893456000.{"events":[]}' | openssl dgst -sha256 -hmac $secret
	const signature = "sha256=fa7a1d8ec55d1355d0cf0869eb77b982131073dadbcf4be399a991bc5d994a46"
	if got := Sign(secret, now.Unix(), body); got != signature {
		t.Fatalf("signed %s", got)
	}
	good := http.Header{TimestampHeader: {"1893456000"}, SignatureHeader: {signature}}
	tests := []struct {
		name   string
		edit   func(h http.Header, body *[]byte, secret *string, now *time.Time)
		refuse bool
	}{
		{"good", func(http.Header, *[]byte, *string, *time.Time) {}, false},
		{"a little late", func(_ http.Header, _ *[]byte, _ *string, now *time.Time) { *now = now.Add(time.Minute) }, false},
		{"old", func(_ http.Header, _ *[]byte, _ *string, now *time.Time) { *now = now.Add(6 * time.Minute) }, true},
		{"early", func(_ http.Header, _ *[]byte, _ *string, now *time.Time) { *now = now.Add(-6 * time.Minute) }, true},
		{"body changed", func(_ http.Header, body *[]byte, _ *string, _ *time.Time) { *body = append(*body, ' ') }, true},
		{"timestamp changed", func(h http.Header, _ *[]byte, _ *string, _ *time.Time) { h.Set(TimestampHeader, "1893456001") }, true},
		{"no timestamp", func(h http.Header, _ *[]byte, _ *string, _ *time.Time) { h.Del(TimestampHeader) }, true},
		{"no signature", func(h http.Header, _ *[]byte, _ *string, _ *time.Time) { h.Del(SignatureHeader) }, true},
		{"another secret", func(_ http.Header, _ *[]byte, secret *string, _ *time.Time) { *secret += "x" }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, b, s, at := good.Clone(), slices.Clone(body), secret, now
			tt.edit(h, &b, &s, &at)
			if err := Verify(s, h, b, at, 5*time.Minute); (err != nil) != tt.refuse {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestNew(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://hooks.example/ca": true, "https://hooks.example:8443/ca?team=1": true, "http://localhost:9000/": true, "http://127.0.0.1:9000": true, "http://[::1]:9000": true,
		"http://hooks.example/": false, "ftp://hooks.example/": false, "https://": false, "hooks.example": false, "https://u:p@hooks.example/": false,
		"https://hooks.example/#x": false, "": false, "https:hooks": false, "http://10.0.0.1/": false,
	} {
		t.Run(fmt.Sprintf("%q", url), func(t *testing.T) {
			if _, err := New(Options{Log: newMemory(), URL: url, Secret: secret}); (err == nil) != ok {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := New(Options{Log: newMemory(), URL: "https://hooks.example/", Secret: "short"}); err == nil {
		t.Error("a short secret was taken")
	}
}

// A post holds events of one instance, and says which.
func TestInstances(t *testing.T) {
	log := newMemory()
	log.cursor = 0
	log.instances = []Instance{{ID: "a", FirstEvent: 1}, {ID: "b", FirstEvent: 4}}
	log.add(ca.EventIssued, 6)
	r := &receiver{t: t}
	srv := httptest.NewServer(r)
	defer srv.Close()
	_, stop := follow(t, options(log, srv.URL))
	eventually(t, "every event", func() bool { return len(r.ids()) == 6 })
	stop()
	if !slices.Equal(r.instances, []string{"a", "b"}) || !slices.Equal(r.taken[0], upTo(1, 3)) || !slices.Equal(r.taken[1], upTo(4, 6)) {
		t.Errorf("posts of %v: %v", r.instances, r.taken)
	}
}

// A head by itself is posted as the newest instance's.
func TestInstanceOfHead(t *testing.T) {
	log, r := newMemory(), &receiver{t: t}
	log.instances = []Instance{{ID: "a", FirstEvent: 1}, {ID: "b", FirstEvent: 4}}
	log.sign(7)
	srv := httptest.NewServer(r)
	defer srv.Close()
	_, stop := follow(t, options(log, srv.URL))
	eventually(t, "the head", func() bool { return len(r.seenHeads()) == 1 })
	stop()
	if !slices.Equal(r.instances, []string{"b"}) {
		t.Errorf("posts of %v", r.instances)
	}
}
