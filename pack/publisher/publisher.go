package publisher

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/deviceca/deviceca/pack"
)

// Options configures a Publisher. Source, Certifier and Dir are needed; zero fields get the default.
type Options struct {
	Source    Source
	Certifier Certifier
	Dir       string // NAME.cbor lies here, and past ones below NAME; made if missing

	// A full pack is made every Every, a state at least every Refresh; each ends
	// Every + Overlap after it was made. Default 24 h, 1 h, 24 h.
	Every, Refresh, Overlap time.Duration
	// Backdate is how far before it was made a state begins, for relying parties whose clock is slow. nil: not at all.
	Backdate func() time.Duration
	// Poll is how often the journal's head is looked at. Default 300 ms.
	Poll time.Duration
	// Keep is how many full packs can still be followed by a delta, Recent
	// how many states between them, until a restart. Default 8 and 4096.
	Keep, Recent int

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default
}

// Issuer is one CA generation.
type Issuer struct {
	Name string // "issuing-1"
	Cert *x509.Certificate
}

// ErrUnknown is a name that no issuer has.
var ErrUnknown = errors.New("no CA of that name publishes revocation packs here")

// Publisher keeps packs current. Make it with New.
type Publisher struct {
	opts    Options
	issuers map[string]*publication
	names   []string
}

// publication is what is published for one issuer.
type publication struct {
	Issuer
	round  sync.Mutex // one at a time
	head   int64      // of the journal: current says all up to it
	loaded bool
	signer *signer

	mu      sync.Mutex // held for moments
	current *pack.State
	made    time.Time    // when current was
	warning string       // of a pack that began in the future
	by      *pack.Signer // for deltas to current
	full    *full        // published last
	past    map[pack.Hash]*pack.State
	order   []pack.Hash // of past, oldest first
	kept    []pack.Hash // of full packs among them, oldest first
	deltas  map[pack.Hash]*delta
}

// full is a full pack as published.
type full struct {
	state *pack.State
	bytes []byte
	made  time.Time
}

var validName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// New makes a Publisher; it reads and writes nothing yet.
func New(opts Options, issuers ...Issuer) (*Publisher, error) {
	opts.Every = cmp.Or(opts.Every, 24*time.Hour)
	opts.Refresh = cmp.Or(opts.Refresh, time.Hour)
	opts.Overlap = cmp.Or(opts.Overlap, 24*time.Hour)
	opts.Poll = cmp.Or(opts.Poll, 300*time.Millisecond)
	opts.Keep = cmp.Or(opts.Keep, 8)
	opts.Recent = cmp.Or(opts.Recent, 4096)
	if opts.Backdate == nil {
		opts.Backdate = func() time.Duration { return 0 }
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Source == nil || opts.Certifier == nil || opts.Dir == "" {
		return nil, errors.New("a pack publisher needs a source, a certifier and a directory")
	}
	if min(opts.Every, opts.Refresh) < time.Second || min(opts.Overlap, opts.Poll) < 0 || min(opts.Keep, opts.Recent) < 1 {
		return nil, errors.New("packs: a schedule below a second, or a bound below one")
	}
	p := &Publisher{opts: opts, issuers: map[string]*publication{}}
	for _, is := range issuers {
		if !validName.MatchString(is.Name) {
			return nil, fmt.Errorf("%q cannot be part of a pack's URL: use a-z, 0-9 and -", is.Name)
		}
		p.issuers[is.Name] = &publication{Issuer: is, past: map[pack.Hash]*pack.State{}, deltas: map[pack.Hash]*delta{}}
		p.names = append(p.names, is.Name)
	}
	return p, nil
}

// Waits between rounds that failed.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// Run publishes on schedule and after revocations until ctx ends, and returns
// its error. What fails is logged and tried again; what was published stays.
func (p *Publisher) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, name := range p.names {
		all.Go(func() {
			var pause time.Duration
			for {
				wait := p.opts.Poll
				if err := p.publish(ctx, p.issuers[name], false); err != nil && ctx.Err() == nil {
					pause = min(max(2*pause, firstPause), lastPause)
					wait = pause
					p.opts.Log.Warn("revocation pack not published; the last one stays", "issuer", name, "retry", wait, "error", err)
				} else {
					pause = 0
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
			}
		})
	}
	all.Wait()
	return ctx.Err()
}

// Publish makes a full pack of the issuer called name now ("" of every issuer). ErrUnknown if there is none.
func (p *Publisher) Publish(ctx context.Context, name string) error {
	names := p.names
	if name != "" {
		names = []string{name}
	}
	for _, name := range names {
		is := p.issuers[name]
		if is == nil {
			return ErrUnknown
		}
		if err := p.publish(ctx, is, true); err != nil {
			return fmt.Errorf("pack of %s: %w", name, err)
		}
	}
	return nil
}

// Refresh does what is due for the issuer called name now, once, as Run does
// all the time. ErrUnknown if there is none.
func (p *Publisher) Refresh(ctx context.Context, name string) error {
	is := p.issuers[name]
	if is == nil {
		return ErrUnknown
	}
	return p.publish(ctx, is, false)
}

// publish does what is due, in this order:
//
//  1. Read the head of the journal, then what is up to it.
//  2. See that there is a key to sign with, for as long as the state lasts.
//  3. Take a sequence, durably: from here on it is used up.
//  4. Make the state; sign and write the full pack, if one is due.
//  5. Show it.
func (p *Publisher) publish(ctx context.Context, is *publication, forced bool) error {
	is.round.Lock()
	defer is.round.Unlock()
	if err := p.load(is); err != nil {
		return err
	}
	now := p.opts.Now().UTC().Truncate(time.Second)
	head, err := p.opts.Source.Head(ctx, is.Name)
	if err != nil {
		return err
	}
	before := is.current
	if before == nil && is.full != nil {
		before = is.full.state // after a start: the header to go on from
	}
	current, ahead := is.current, before != nil && before.Header().ThisUpdate.After(now)
	if ahead {
		current = nil
		p.warn(is, before.Header().ThisUpdate, now)
	}
	whole := forced || ahead || is.full == nil || !now.Before(is.full.made.Add(p.opts.Every))
	if !whole && current != nil && head == is.head && now.Before(is.made.Add(p.opts.Refresh)) {
		return nil
	}
	h := pack.Header{Issuer: pack.IssuerHash(is.Cert)}
	if before != nil && !ahead { // by a clock that was ahead, certificates had expired that are valid
		h.First = before.Header().First
	}
	changed, revoked, err := p.read(ctx, is, current, h.First, head)
	if err != nil {
		return err
	}
	oldest, next, err := p.opts.Source.Indexes(ctx, is.Name, now)
	if err != nil {
		return err
	}
	end := next
	if before != nil {
		end = max(end, before.Header().First+before.Header().Size)
	}
	if whole {
		h.First = max(h.First, min(oldest, next)) // expired certificates leave with a full pack
	}
	h.Size = end - min(end, h.First)
	by, until, err := p.signerFor(ctx, is, now)
	if err != nil {
		return err
	}
	h.ThisUpdate, h.NextUpdate = later(now.Add(-p.opts.Backdate()).Truncate(time.Second), is.signer.cert.NotBefore), until
	if before != nil && !ahead {
		h.ThisUpdate = later(h.ThisUpdate, before.Header().ThisUpdate)
	}
	sequence, err := p.opts.Source.NextSequence(ctx, is.Name)
	if err != nil {
		return err
	}
	h.Sequence = uint64(sequence)
	h.Epoch = epoch(&h, before, ahead)
	if before != nil && h.Sequence <= before.Header().Sequence && h.Epoch == before.Header().Epoch {
		return fmt.Errorf("sequence %d is not above %d, published before: the counter went back; restore it", h.Sequence, before.Header().Sequence)
	}
	var state *pack.State
	if current != nil {
		state, err = current.Next(h, changed)
	} else {
		state, err = pack.NewState(h, func(yield func(uint64) bool) {
			for _, index := range revoked {
				if index >= h.First && !yield(index) {
					return
				}
			}
		})
	}
	if err != nil {
		return err
	}
	// A date has whole seconds, and no two states one date: a client may ask with If-Modified-Since.
	made := now
	if since := now.Sub(is.made); since <= 0 && since > -time.Minute {
		made = is.made.Add(time.Second)
	}
	var f *full
	if whole {
		f = &full{state: state, made: made}
		var base pack.Hash
		if is.full != nil && !ahead {
			base = is.full.state.Hash()
		}
		if f.bytes, err = state.Sign(by, base); err != nil {
			return err
		}
		if err := p.save(is, f); err != nil {
			return err
		}
		p.opts.Log.Info("revocation pack published", "issuer", is.Name, "epoch", h.Epoch, "sequence", h.Sequence,
			"revoked", state.Revoked(), "size", len(f.bytes), "expires", h.NextUpdate)
	}
	is.head = head
	if ahead {
		is.forget()
	}
	is.show(state, by, f, made, p.opts.Keep, p.opts.Recent)
	return p.prune(is)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// warn says once that what is published begins in the future.
func (p *Publisher) warn(is *publication, begin, now time.Time) {
	is.mu.Lock()
	defer is.mu.Unlock()
	warning := fmt.Sprintf("the revocation pack of %s began in the future (%s): the clock of this server was ahead when it was made; a new one is made as soon as the token answers",
		is.Name, begin.Format(time.RFC3339))
	if is.warning != warning {
		p.opts.Log.Warn("the revocation pack begins in the future: the clock of this server was ahead, or is behind now; it is made again", "issuer", is.Name, "begin", begin)
	}
	is.warning = warning
}

// Warnings say which CAs' packs were found to begin in the future since the start.
func (p *Publisher) Warnings() (all []string) {
	for _, name := range p.names {
		is := p.issuers[name]
		is.mu.Lock()
		if is.warning != "" {
			all = append(all, is.warning)
		}
		is.mu.Unlock()
	}
	return all
}

// epoch names the epoch of a state that follows before, nil if that is not known. An epoch is
// named after its first index: both rise together, and never fall. When a pack began in the future (ahead), First may fall, and a new
// epoch begins nevertheless; from then on epochs are higher than their first index, for as long as they must. A restore moves sequences beyond
// all indexes; from then on an epoch is named after the sequence that it begins with: which epochs were published before, and
// from which index on, the restored ledger cannot tell.
func epoch(h *pack.Header, before *pack.State, ahead bool) uint64 {
	switch {
	case h.Sequence <= pack.MaxIndex && before == nil:
		return h.First
	case h.Sequence <= pack.MaxIndex && before.Header().First == h.First && !ahead:
		return before.Header().Epoch
	case h.Sequence <= pack.MaxIndex:
		return max(h.First, before.Header().Epoch+1)
	case !ahead && before != nil && before.Header().First == h.First && before.Header().Epoch > pack.MaxIndex:
		return before.Header().Epoch
	}
	return h.Sequence
}

// read is what the next state needs: the changes since the current one, in
// their order, or after a start everything that is revoked.
func (p *Publisher) read(ctx context.Context, is *publication, current *pack.State, first uint64, head int64) (iter.Seq2[uint64, bool], []uint64, error) {
	if current == nil {
		var revoked []uint64
		for index, err := range p.opts.Source.Revoked(ctx, is.Name, first) {
			if err != nil {
				return nil, nil, err
			}
			revoked = append(revoked, index)
		}
		return nil, revoked, nil
	}
	if head < is.head {
		return nil, nil, fmt.Errorf("the journal of %s ends at %d, and ended at %d before: restore it", is.Name, head, is.head)
	}
	var changes []Change
	for c, err := range p.opts.Source.Changes(ctx, is.Name, is.head, head) {
		if err != nil {
			return nil, nil, err
		}
		changes = append(changes, c)
	}
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return func(yield func(uint64, bool) bool) {
		for _, c := range changes {
			if !yield(c.Index, !c.Released) {
				return
			}
		}
	}, nil, nil
}

// forget drops all states: no delta leads from one that began in the future to one that did not.
func (is *publication) forget() {
	is.mu.Lock()
	defer is.mu.Unlock()
	clear(is.past)
	is.order, is.kept, is.full = nil, nil, nil
}

// show makes a state the current one, and the one before a parent.
func (is *publication) show(state *pack.State, by *pack.Signer, f *full, made time.Time, keep, recent int) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.current, is.by, is.made = state, by, made
	clear(is.deltas)
	if f != nil {
		is.full = f
		is.kept = append(is.kept, state.Hash())
	}
	is.past[state.Hash()] = state
	is.order = append(is.order, state.Hash())
	for len(is.kept) > keep {
		is.kept = is.kept[1:]
	}
	// A full pack may be behind many later states, and stays a parent longer.
	for over := len(is.order) - recent - keep; over > 0; over-- {
		i := slices.IndexFunc(is.order, func(h pack.Hash) bool { return !slices.Contains(is.kept, h) })
		delete(is.past, is.order[i])
		is.order = slices.Delete(is.order, i, i+1)
	}
}
