package storetest

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/ocsp"
)

// changes reads a part of the journal, in order.
func changes(t testing.TB, e Engine, issuer string, after, upTo int64) (all []crl.Change) {
	t.Helper()
	for c, err := range e.Journal().Changes(t.Context(), issuer, after, upTo) {
		must(t, err)
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b crl.Change) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return all
}

// revokedNow reads what is revoked now, as it comes.
func revokedNow(t testing.TB, e Engine, q crl.Query) (all []ca.Serial) {
	t.Helper()
	for entry, err := range e.Journal().Revoked(t.Context(), Issuer, q) {
		must(t, err)
		all = append(all, entry.Serial)
	}
	return all
}

var everything = crl.Query{To: math.MaxUint64}

func hold() ca.Revocation { return ca.Revocation{Time: Start, Reason: ca.ReasonCertificateHold} }

func testRelease(t *testing.T, e Engine) {
	m := NewMake(t, e, 4)
	held := Record(t, e, m.Enrol("lamp-1", "")).Serial
	lost := Record(t, e, m.Enrol("lamp-2", "")).Serial
	good := Record(t, e, m.Enrol("lamp-3", "")).Serial
	value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{held}, hold(), Event(ca.EventRevoked, "lamp-1")))
	value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{lost}, ca.Revocation{Time: Start, Reason: ca.ReasonKeyCompromise}, Event(ca.EventRevoked, "lamp-2")))

	at := Start.Add(time.Minute)
	for name, c := range map[string]struct {
		serial ca.Serial
		kind   ca.Kind
	}{"for good": {lost, ca.Conflict}, "not revoked": {good, ca.Conflict}} {
		if _, err := e.Release(t.Context(), c.serial, at, Event(ca.EventReleased, "")); ca.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := e.Release(t.Context(), ca.NewSerial(99, [12]byte{}), at, Event(ca.EventReleased, ""))
	wantErr(t, err, ca.ErrNoRecord)

	c := value[*ca.Certificate](t)(e.Release(t.Context(), held, at, Event(ca.EventReleased, "lamp-1")))
	if c.Serial != held || c.Revocation != nil {
		t.Errorf("released %+v", c)
	}
	if again := value[*ca.Certificate](t)(e.CertificateBySerial(t.Context(), held)); again.Revocation != nil {
		t.Errorf("read back %+v", again.Revocation)
	}
	lines := changes(t, e, Issuer, 0, math.MaxInt64)
	if len(lines) != 2 || lines[0].Serial != lost || lines[1].Serial != held || !lines[1].Released || !lines[1].Revoked.Equal(at) || lines[1].Sequence != 3 {
		t.Fatalf("journal %+v", lines)
	}
	if got := revokedNow(t, e, everything); !slices.Equal(got, []ca.Serial{lost}) {
		t.Errorf("revoked now: %v", got)
	}
	// Held again, then for good: the hold's line goes.
	value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{held}, hold(), Event(ca.EventRevoked, "lamp-1")))
	if again := value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{held}, hold(), Event(ca.EventRevoked, "lamp-1"))); len(again) != 0 {
		t.Errorf("a second hold changed %+v", again)
	}
	good5 := ca.Revocation{Time: at, Reason: ca.ReasonCessationOfOperation}
	moved := value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{held, lost}, good5, Event(ca.EventRevoked, "lamp-1")))
	if len(moved) != 1 || moved[0].Serial != held || moved[0].Revocation.Sequence != 5 || moved[0].Revocation.Reason != ca.ReasonCessationOfOperation {
		t.Errorf("for good: %+v", moved)
	}
	if lines := changes(t, e, Issuer, 3, math.MaxInt64); len(lines) != 1 || lines[0].Sequence != 5 || lines[0].Released {
		t.Errorf("journal %+v", lines)
	}
	if head := value[int64](t)(e.Journal().Head(t.Context(), Issuer)); head != 5 {
		t.Errorf("head %d", head)
	}
	// Retiring takes what is on hold along.
	value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{good}, hold(), Event(ca.EventRevoked, "lamp-3")))
	retired := value[[]ca.Certificate](t)(e.MoveDevice(t.Context(), "lamp-3", device.Retired, good5, Event(ca.EventDeviceMoved, "lamp-3")))
	if len(retired) != 1 || retired[0].Revocation.Reason != ca.ReasonCessationOfOperation {
		t.Errorf("retired %+v", retired)
	}
}

func testJournal(t *testing.T, e Engine) {
	const n = 9000 // more than two pages
	m := NewMake(t, e, n)
	var serials []ca.Serial
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range n / 8 {
				i := m.Issuance("")
				Record(t, e, i)
				mu.Lock()
				serials = append(serials, i.Certificate.Serial)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.SortFunc(serials, func(a, b ca.Serial) int { return cmp.Compare(a.Index(), b.Index()) })
	last := slices.Clone(serials) // revoked first, so that sequences and serials run against each other
	slices.Reverse(last)
	for chunk := range slices.Chunk(last, 1000) {
		value[[]ca.Certificate](t)(e.Revoke(t.Context(), chunk, ca.Revocation{Time: Start, Reason: 4}, Event(ca.EventRevoked, "")))
	}
	if got := revokedNow(t, e, everything); !slices.Equal(got, serials) {
		t.Errorf("%d revoked, want %d in the order of serials", len(got), len(serials))
	}
	lines := changes(t, e, Issuer, 10, n-10)
	if len(lines) != n-20 || lines[0].Sequence != 11 || lines[len(lines)-1].Sequence != n-10 {
		t.Errorf("%d changes", len(lines))
	}
	end := Start.Add(90 * 24 * time.Hour)
	for name, c := range map[string]struct {
		q    crl.Query
		want []ca.Serial
	}{
		"a range":                     {crl.Query{From: 100, To: 200}, serials[100:200]},
		"one":                         {crl.Query{From: 0, To: 1}, serials[:1]},
		"beyond":                      {crl.Query{From: n, To: math.MaxUint64}, nil},
		"highest index":               {crl.Query{From: ca.MaxIndex, To: ca.MaxIndex + 1}, nil},
		"beyond all":                  {crl.Query{From: math.MaxUint64, To: math.MaxUint64}, nil},
		"not expired":                 {crl.Query{To: 5, Since: end}, serials[:5]},
		"expired":                     {crl.Query{To: math.MaxUint64, Since: end.Add(time.Second), After: n}, nil},
		"expired, but not yet listed": {crl.Query{To: math.MaxUint64, Since: end.Add(time.Second), After: n - 3}, serials[:3]},
	} {
		if got := revokedNow(t, e, c.q); !slices.Equal(got, c.want) {
			t.Errorf("%s: %d, want %d", name, len(got), len(c.want))
		}
	}
	// A reader that stops early leaves nothing open.
	for range e.Journal().Revoked(t.Context(), Issuer, everything) {
		break
	}
	j := e.Journal()
	var before int64
	for range 3 {
		number := value[int64](t)(j.NextNumber(t.Context(), Issuer))
		if number != before+1 {
			t.Errorf("number %d after %d", number, before)
		}
		before = number
	}
	if first := value[int64](t)(j.NextNumber(t.Context(), "quarantine-1")); first != 1 {
		t.Errorf("another issuer's first number is %d", first)
	}
	if first := value[int64](t)(j.NextSequence(t.Context(), Issuer)); first != 1 {
		t.Errorf("the first pack is %d", first)
	}
	// What a copy of yesterday does not know was numbered all the same.
	if _, err := e.Restore(t.Context(), 1, Start, Event(ca.EventRestored, "")); err != nil {
		t.Fatal(err)
	}
	if number := value[int64](t)(j.NextNumber(t.Context(), Issuer)); number < 1<<32 {
		t.Errorf("number %d after a restore", number)
	}
	// Nor does it know which counters were begun since.
	if number := value[int64](t)(j.NextSequence(t.Context(), "begun-since")); number < 1<<32 {
		t.Errorf("number %d of a counter that was begun after a restore", number)
	}
}

func testStatus(t *testing.T, e Engine) {
	m := NewMake(t, e, 3)
	good, revoked := Record(t, e, m.Enrol("lamp-1", "")), Record(t, e, m.Enrol("lamp-2", ""))
	value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{revoked.Serial}, hold(), Event(ca.EventRevoked, "lamp-2")))
	other := good.Serial
	other[18] ^= 1
	for name, c := range map[string]struct {
		issuer          string
		serial          ca.Serial
		issued, revoked bool
	}{
		"good":                 {Issuer, good.Serial, true, false},
		"revoked":              {Issuer, revoked.Serial, true, true},
		"index of another":     {Issuer, other, false, false},
		"reserved, not issued": {Issuer, ca.NewSerial(2, [12]byte{1}), false, false},
		"beyond":               {Issuer, ca.NewSerial(3, [12]byte{1}), false, false},
		"another issuer's":     {"quarantine-1", good.Serial, false, false},
		"issuer of no one":     {"none", good.Serial, false, false},
	} {
		got := value[ocsp.Status](t)(e.Journal().Status(t.Context(), c.issuer, c.serial))
		if got.Issued != c.issued || (got.Revocation != nil) != c.revoked || c.issued && !got.NotAfter.Equal(good.NotAfter) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	value[*ca.Certificate](t)(e.Release(t.Context(), revoked.Serial, Start, Event(ca.EventReleased, "lamp-2")))
	if got := value[ocsp.Status](t)(e.Journal().Status(t.Context(), Issuer, revoked.Serial)); got.Revocation != nil {
		t.Errorf("released: %+v", got)
	}
	// The first of a new block is known as soon as it is recorded.
	next := Record(t, e, NewMake(t, e, 1).Enrol("lamp-3", ""))
	if got := value[ocsp.Status](t)(e.Journal().Status(t.Context(), Issuer, next.Serial)); !got.Issued {
		t.Error("a certificate just recorded is not known")
	}
}

func testOldest(t *testing.T, e Engine) {
	const n = 20_000
	indexes := func(after time.Duration) (oldest, next uint64) {
		t.Helper()
		oldest, next, err := e.Journal().Indexes(t.Context(), Issuer, Start.Add(after))
		must(t, err)
		return oldest, next
	}
	if oldest, next := indexes(0); oldest != 0 || next != 0 {
		t.Errorf("of nothing: %d, %d", oldest, next)
	}
	m := NewMake(t, e, n+500)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range n / 16 {
				i := m.Issuance("")
				i.Certificate.NotAfter = Start.Add(time.Duration(i.Certificate.Serial.Index()/1000+1) * time.Hour)
				Record(t, e, i)
			}
		})
	}
	wg.Wait()
	// Twice each: what was found is kept.
	for _, after := range []time.Duration{0, 5 * time.Hour, 5 * time.Hour, 15 * time.Hour, 15 * time.Hour, 18*time.Hour + time.Minute, 100 * time.Hour, 2 * time.Hour, 100 * time.Hour} {
		oldest, next := indexes(after)
		lowest := min(uint64(after/time.Hour)*1000, n)
		if next != n || oldest > lowest || oldest+1024 < lowest {
			t.Errorf("after %s: oldest %d, want %d or a little less; next %d", after, oldest, lowest, next)
		}
	}
}

func testNoStatus(t *testing.T, e Engine) {
	m := NewMake(t, e, 2)
	i := m.Enrol("lamp-1", "")
	i.Certificate.NoStatus = true
	c := Record(t, e, i)
	if got := value[*ca.Certificate](t)(e.CertificateBySerial(t.Context(), c.Serial)); !got.NoStatus {
		t.Error("it was not kept")
	}
	if got := value[ocsp.Status](t)(e.Journal().Status(t.Context(), Issuer, c.Serial)); got.Issued {
		t.Error("OCSP would speak of it")
	}
	revoked := value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{c.Serial}, hold(), Event(ca.EventRevoked, "lamp-1")))
	if len(revoked) != 1 || revoked[0].Revocation == nil {
		t.Errorf("revoked %+v", revoked)
	}
	if got, _, err := e.Presented(t.Context(), c.Serial); err != nil || got.Revocation == nil {
		t.Errorf("our own protocols would take it: %v", err)
	}
	value[*ca.Certificate](t)(e.Release(t.Context(), c.Serial, Start, Event(ca.EventReleased, "lamp-1")))
	value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{c.Serial}, hold(), Event(ca.EventRevoked, "lamp-1")))
	if head := value[int64](t)(e.Journal().Head(t.Context(), Issuer)); head != 0 || len(changes(t, e, Issuer, 0, math.MaxInt64)) != 0 || len(revokedNow(t, e, everything)) != 0 {
		t.Errorf("it is published: head %d", head)
	}
}
