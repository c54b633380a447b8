package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/audit"
)

// Follower posts events. Safe for concurrent use, apart from Run.
type Follower struct {
	Options
	client *http.Client
	kinds  map[ca.EventKind]bool

	delivered, failures atomic.Int64
	oldest              atomic.Int64 // unix milliseconds of the oldest event known to wait; 0 if none does
}

// Stats are counts since the follower was made.
type Stats struct {
	Delivered int64         // events that the receiver took
	Failures  int64         // posts that it did not take
	Lag       time.Duration // age of the oldest event that waits, 0 if none does
}

// Stats reads the counts.
func (f *Follower) Stats() Stats {
	s := Stats{Delivered: f.delivered.Load(), Failures: f.failures.Load()}
	if oldest := f.oldest.Load(); oldest != 0 {
		s.Lag = max(0, f.Now().Sub(time.UnixMilli(oldest)))
	}
	return s
}

const (
	page = 1000 // events read from the log at a time
	// keepSkipped is how many events of other kinds go by before the cursor is kept
	// for their sake alone: they are only read again after a restart.
	keepSkipped = 10_000
	// maxAnswer is how much of an answer is read, so that the connection can be used again.
	maxAnswer = 64 << 10
)

// Run follows the log until ctx ends. On its first run ever it starts from
// now; what happened before is not told.
func (f *Follower) Run(ctx context.Context) {
	var cursor, kept int64
	var instances []Instance
	var told uint64 // sequence of the head that was posted last
	f.insist(ctx, "the webhook cannot read where it stopped", func() (err error) {
		if cursor, err = f.begin(ctx); err == nil {
			instances, err = f.Log.Instances(ctx)
		}
		kept = cursor
		return err
	})
	for ctx.Err() == nil {
		var p post
		var next int64
		f.insist(ctx, "the webhook cannot read the audit log", func() (err error) {
			if p.Events, next, err = f.read(ctx, cursor, instances); err == nil {
				p.Head, err = f.head(ctx, told)
			}
			return err
		})
		p.Instance = instances[len(instances)-1].ID // which signed the head
		if len(p.Events) > 0 {
			p.Instance = instanceOf(instances, p.Events[0]).ID
			f.oldest.Store(p.Events[0].Time.UnixMilli())
		}
		if len(p.Events) > 0 || p.Head != nil {
			f.insist(ctx, "the webhook's receiver does not take events", func() error { return f.post(ctx, p) })
			if ctx.Err() != nil {
				return // not delivered, or not known to be: the next run posts it again
			}
			f.delivered.Add(int64(len(p.Events)))
			f.oldest.Store(0)
			if p.Head != nil {
				told = p.Head.Sequence
			}
		}
		if len(p.Events) > 0 || next-kept >= keepSkipped {
			f.insist(ctx, "the webhook cannot keep where it stopped", func() error { return f.Log.SetCursor(ctx, next) })
			kept = next
		}
		if next == cursor {
			pause(ctx, f.Poll)
		}
		cursor = next
	}
}

// begin is where to go on from.
func (f *Follower) begin(ctx context.Context) (int64, error) {
	cursor, err := f.Log.Cursor(ctx)
	if !errors.Is(err, ca.ErrNoRecord) {
		return cursor, err
	}
	if cursor, err = f.Log.Newest(ctx); err != nil {
		return 0, err
	}
	return cursor, f.Log.SetCursor(ctx, cursor)
}

// post is the body of a post.
type post struct {
	Instance string            `json:"instance"`
	Events   []Event           `json:"events"`
	Head     *audit.Checkpoint `json:"head,omitempty"`
}

// head is the newest head of the log, if it was not posted yet. It stands for
// all before it.
func (f *Follower) head(ctx context.Context, told uint64) (*audit.Checkpoint, error) {
	c, err := f.Log.Head(ctx)
	if err != nil || c == nil || c.Sequence <= told {
		return nil, err
	}
	return c, nil
}

// instanceOf is the instance that an event is of: the last that begins with it or before.
func instanceOf(instances []Instance, e Event) (of Instance) {
	for i, instance := range instances {
		if i == 0 || instance.FirstEvent <= e.ID {
			of = instance
		}
	}
	return of
}

// read gives the next events to post, at most MaxEvents and all of one instance, and the cursor that
// stands behind them and behind those passed over.
func (f *Follower) read(ctx context.Context, cursor int64, instances []Instance) (batch []Event, next int64, err error) {
	events, err := f.Log.Events(ctx, cursor, page)
	if err != nil {
		return nil, cursor, err
	}
	next, batch = cursor, []Event{} // in JSON, no events are []
	for _, e := range events {
		if f.kinds[e.Kind] {
			if len(batch) == MaxEvents || len(batch) > 0 && instanceOf(instances, batch[0]) != instanceOf(instances, e) {
				break
			}
			batch = append(batch, e)
		}
		next = e.ID
	}
	return batch, next, nil
}

// insist repeats do until it succeeds or ctx ends, with pauses that double,
// each shortened by up to half so that servers do not all come back at once.
func (f *Follower) insist(ctx context.Context, trouble string, do func() error) {
	for delay := f.MinDelay; ctx.Err() == nil; delay = min(2*delay, f.MaxDelay) {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		wait := delay - rand.N(delay/2+1)
		f.Logger.Warn(trouble, "err", err, "retry", wait.Round(time.Millisecond))
		pause(ctx, wait)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// post sends a post; anything but 2xx is an error.
func (f *Follower) post(ctx context.Context, p post) (err error) {
	defer func() {
		if err != nil && ctx.Err() == nil {
			f.failures.Add(1)
		}
	}()
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	at := f.Now().Unix()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "deviceca")
	req.Header.Set(InstanceHeader, p.Instance)
	req.Header.Set(TimestampHeader, strconv.FormatInt(at, 10))
	req.Header.Set(SignatureHeader, Sign(f.Secret, at, body))
	resp, err := f.client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // it would repeat the URL, whose query may be a secret
		}
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	switch resp.StatusCode / 100 {
	case 2:
		return nil
	case 3:
		return fmt.Errorf("it answers %d, and redirects are not followed: name the final URL", resp.StatusCode)
	}
	return fmt.Errorf("it answers %d", resp.StatusCode)
}
