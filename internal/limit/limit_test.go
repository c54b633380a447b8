package limit

import (
	"fmt"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestBucketDrainsAndFills(t *testing.T) {
	b, rate := NewBuckets(10), Rate{Burst: 3, Every: time.Minute}
	for i := range 3 {
		if wait := b.Take("a", rate, start); wait != 0 {
			t.Fatalf("token %d of a full bucket of 3: wait %s", i, wait)
		}
	}
	if wait := b.Take("a", rate, start); wait != time.Minute {
		t.Errorf("an empty bucket: wait %s, want 1m", wait)
	}
	if wait := b.Wait("a", rate, start.Add(20*time.Second)); wait != 40*time.Second {
		t.Errorf("20 s later: wait %s, want 40s", wait)
	}
	if wait := b.Take("b", rate, start); wait != 0 {
		t.Errorf("another key: wait %s", wait)
	}
	if wait := b.Take("a", rate, start.Add(time.Minute)); wait != 0 {
		t.Errorf("a minute later: wait %s", wait)
	}
	if wait := b.Take("a", rate, start.Add(time.Minute)); wait != time.Minute {
		t.Errorf("and empty again: wait %s, want 1m", wait)
	}
	// However long it waits, it holds no more than its burst.
	later, took := start.Add(time.Hour), 0
	for b.Take("a", rate, later) == 0 {
		took++
	}
	if took != 3 {
		t.Errorf("after an hour it held %d tokens, want 3", took)
	}
	b.Return("a", rate)
	if wait := b.Take("a", rate, later); wait != 0 {
		t.Errorf("a token that was given back: wait %s", wait)
	}
}

func TestBucketAfterClockWasSetBack(t *testing.T) {
	b, rate := NewBuckets(10), Rate{Burst: 2, Every: time.Second}
	b.Take("a", rate, start.Add(24*time.Hour))
	for i := range 10 {
		if wait := b.Take("a", rate, start.Add(time.Duration(i)*rate.Every)); wait != 0 {
			t.Errorf("the clock went back a day, %d s ago: wait %s, want none at this pace", i, wait)
		}
	}
}

func TestNoLimit(t *testing.T) {
	b := NewBuckets(1)
	for _, rate := range []Rate{{}, {Burst: 5}, {Every: time.Hour}, PerMinute(0)} {
		for range 100 {
			if wait := b.Take("a", rate, start); wait != 0 {
				t.Errorf("%+v: wait %s", rate, wait)
			}
		}
	}
	if b.Len() != 0 {
		t.Errorf("what has no limit takes %d places in the table", b.Len())
	}
}

func TestFullTableForgetsTheOldestKey(t *testing.T) {
	b, rate := NewBuckets(100), Rate{Burst: 1, Every: time.Hour}
	for i := range 1000 {
		if wait := b.Take(fmt.Sprint("stranger ", i), rate, start); wait != 0 {
			t.Fatalf("key %d was refused for others: wait %s", i, wait)
		}
		b.Take("steady", rate, start)
		if b.Wait("steady", rate, start) == 0 {
			t.Fatalf("after %d strangers the key that is asked for all the time was forgotten", i)
		}
	}
	if b.Len() != 100 {
		t.Errorf("the table holds %d keys, want 100", b.Len())
	}
	if b.Wait("stranger 999", rate, start) == 0 {
		t.Error("the newest key was forgotten")
	}
}
