package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// The loads that ratios are made of, as the report calls them.
const (
	renewLoad = "renewal, new key, kept-alive mTLS"
	peerLoad  = "globalsign estserver, the same load"
)

// signingGoroutines are the degrees of parallelism at which the token is measured.
var signingGoroutines = []int{1, 2, 8}

// run is everything that is measured, side by side.
type run struct {
	options
	report    *report
	dir       string
	ours      *deviceca
	fleet     *fleet
	theirs    *estserver
	peers     *fleet
	mocks     [2]*mock   // by MAC, by signature
	macs      []*cmp.MAC // of the fleet
	token     *token
	acme      []acmeLoad
	acmePeers []*acmePeer
	rates     map[string]float64 // of the round before: how many requests to prepare
	batch     int
}

func (b *run) wants(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(b.only, n) })
}

func (b *run) setUp(ctx context.Context) (err error) {
	b.rates = map[string]float64{}
	if b.wants("renew", "reenroll", "first", "keygen", "handshake", "resumed", "cmp", "acme") {
		progress("starting %s on a fresh home", b.program)
		if b.ours, err = startDeviceca(ctx, b.program, b.dir); err != nil {
			return err
		}
		if b.fleet, err = enrolFleet(ctx, b.ours.target, b.connections, b.ours.authorization); err != nil {
			return err
		}
		if err := warm(ctx, b.fleet); err != nil {
			return err
		}
	}
	if b.wants("cmp") {
		b.macs = make([]*cmp.MAC, b.connections)
		for i := range b.mocks {
			if b.mocks[i], err = b.startMock(ctx, i == 1); err != nil {
				return err
			}
		}
	}
	if b.wants("estserver") {
		progress("building and starting globalsign's estserver")
		program, err := buildEstserver(ctx, b.peer, b.dir)
		if err != nil {
			return err
		}
		if b.theirs, err = startEstserver(ctx, program, b.dir); err != nil {
			return err
		}
		if b.peers, err = b.theirs.fleet(b.connections); err != nil {
			return err
		}
		if err := warm(ctx, b.peers); err != nil {
			return err
		}
	}
	if err := b.setUpACME(ctx); err != nil {
		return err
	}
	if b.wants("sign") {
		dir := filepath.Join(b.dir, "token")
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		b.token, err = openToken(ctx, dir)
	}
	return err
}

// warm lets a server grow its heap, caches and connections before it is measured.
func warm(ctx context.Context, f *fleet) error {
	members, err := f.sameKey(estPath + "simpleenroll")
	if err != nil {
		return err
	}
	w := work{target: f.target, connection: keptAlive, devices: members, limit: 500 * time.Millisecond}
	nothing := func() error { return nil }
	_, err = w.run(ctx, nothing, nothing)
	return err
}

func (b *run) close() error {
	var errs []error
	if b.ours != nil {
		errs = append(errs, b.ours.stop())
	}
	for _, m := range b.mocks {
		if m != nil {
			m.kill()
		}
	}
	if b.theirs != nil {
		errs = append(errs, b.theirs.stop())
	}
	for _, p := range b.acmePeers {
		p.close()
	}
	if b.token != nil {
		errs = append(errs, b.token.close())
	}
	return errors.Join(errs...)
}

// round gives every load one turn, ours and the peer's next to each other.
func (b *run) round(ctx context.Context, n int) error {
	progress("round %d of %d", n+1, b.rounds)
	verify, err := verifyRate(min(b.duration, 300*time.Millisecond))
	if err != nil {
		return err
	}
	b.report.Verify = append(b.report.Verify, verify)
	if b.wants("sign") {
		for _, goroutines := range signingGoroutines {
			s, err := b.token.compare(ctx, goroutines, b.duration/3)
			if err != nil {
				return err
			}
			progress("  token, %d at once: %.0f/s bare, keys/bare %.3f", goroutines, s.BarePerSecond, s.Ratio)
			b.report.Signing[goroutines] = append(b.report.Signing[goroutines], s)
		}
	}
	const enroll, reenroll = estPath + "simpleenroll", estPath + "simplereenroll"
	for _, l := range []struct {
		part, name, connection string
		prepare                func(total int) ([]*member, error)
	}{
		{"renew", renewLoad, keptAlive, func(total int) ([]*member, error) { return b.fleet.newKeys(enroll, total) }},
		{"estserver", peerLoad, keptAlive, func(total int) ([]*member, error) { return b.peers.newKeys(enroll, total) }},
		{"reenroll", "simplereenroll, new key, kept-alive mTLS", keptAlive, func(total int) ([]*member, error) { return b.fleet.newKeys(reenroll, total) }},
		{"first", "first enrolment, Basic, kept alive", keptAlive, func(total int) ([]*member, error) {
			b.batch++
			return newDevices(b.ours.target, enroll, b.connections, total, b.batch, b.ours.authorization)
		}},
		{"keygen", "serverkeygen, P-256 in clear, kept-alive mTLS", keptAlive, func(int) ([]*member, error) { return b.fleet.sameKey(estPath + "serverkeygen") }},
		{"handshake", "renewal, new key, full handshake each", fresh, func(total int) ([]*member, error) { return b.fleet.newKeys(enroll, total) }},
		{"resumed", "renewal, new key, resumed session each", resumed, func(total int) ([]*member, error) { return b.fleet.newKeys(enroll, total) }},
	} {
		if !b.wants(l.part) {
			continue
		}
		// Half as many again as last time; the machine may have become quicker.
		expected := max(1000, 1.5*b.rates[l.part])
		if n == 0 {
			expected = 4000
		}
		members, err := l.prepare(int(expected * b.duration.Seconds()))
		if err != nil {
			return err
		}
		var server measured
		if l.part == "estserver" {
			server = measured{b.theirs.process, b.theirs.target, nil}
		} else {
			server = measured{b.ours.process, b.ours.target, b.ours.counters}
		}
		if err := b.turn(ctx, server, l.part, l.name, work{connection: l.connection, devices: members, limit: b.duration}); err != nil {
			return err
		}
	}
	if b.wants("cmp") {
		if err := b.roundCMP(ctx, n); err != nil {
			return err
		}
	}
	return b.roundACME(ctx, n)
}

// measured is a server under load. What it counts is nil for one that does not tell.
type measured struct {
	*process
	target
	counters func(context.Context) (counters, error)
}

// turn measures one load in one round. key keeps its rate for the next.
func (b *run) turn(ctx context.Context, server measured, key, name string, w work) error {
	s, err := b.measure(ctx, server, w)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	b.rates[key] = s.PerSecond
	progress("  %s: %.0f/s, %.0f per CPU-second, p99 %.1f ms", name, s.PerSecond, s.PerCPUSecond, s.P99)
	b.report.add(name, s)
	return nil
}

// measure runs a load and takes what the server used from when every connection stands to the last answer.
func (b *run) measure(ctx context.Context, server measured, w work) (sample, error) {
	var used time.Duration
	var counted counters
	w.target = server.target
	count := func() error { return nil }
	if server.counters != nil {
		count = func() error {
			now, err := server.counters(ctx)
			counted = now.minus(counted) // the second time: what came since the first
			return err
		}
	}
	clock := func() error {
		now, err := server.cpu()
		used = now - used
		return err
	}
	// Scraping costs the server a little: it stays outside of its processor time.
	o, err := w.run(ctx,
		func() error { return errors.Join(count(), clock()) },
		func() error { return errors.Join(clock(), count()) })
	if err != nil {
		return sample{}, err
	}
	if o.done == 0 || used == 0 {
		return sample{}, errors.New("nothing was enrolled in the time: give it more, with -duration")
	}
	// The first connection of each device has nothing to resume.
	if w.connection == resumed && o.resumed < (o.done-len(w.devices))*9/10 {
		return sample{}, fmt.Errorf("only %d of %d connections resumed a session", o.resumed, o.done)
	}
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	s := sample{Certificates: o.done, Seconds: o.took.Seconds(), CPUSeconds: used.Seconds(), PerSecond: o.rate(),
		PerCPUSecond: float64(o.done) / used.Seconds(), P50: milliseconds(o.quantile(0.5)), P99: milliseconds(o.quantile(0.99)), Short: o.short}
	if server.counters == nil {
		return s, nil
	}
	if int(counted.certificates) != o.done {
		return sample{}, fmt.Errorf("the server says that it issued %.0f certificates, and %d came", counted.certificates, o.done)
	}
	n := float64(o.done)
	s.Signatures, s.Commits, s.ChangesCommit = counted.signatures/n, counted.commits/n, counted.changes/counted.commits
	s.Allocations, s.Bytes = counted.mallocs/n, counted.bytes/n
	return s, nil
}
