package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// honest is a line of new devices, each of which enrols once over EST on a connection of its
// own: as much work as a device can cause, and within every budget of a device.
type honest struct {
	h     *home
	grant grant
	next  int
}

func newHonest(h *home) (*honest, error) {
	g, err := h.group("honest", "honest-*")
	return &honest{h: h, grant: g}, err
}

// pause lies between two enrolments: the device is no flood.
const pause = 50 * time.Millisecond

// latencies are those of what succeeded, sorted, and how much did not.
type latencies struct {
	took   []time.Duration
	failed int
	last   error
}

// at is a percentile.
func (l latencies) at(percent int) time.Duration {
	if len(l.took) == 0 {
		return time.Hour // nothing succeeded: longer than any bound
	}
	return l.took[min(len(l.took)*percent/100, len(l.took)-1)]
}

func (d *honest) measure(ctx context.Context, duration time.Duration) (l latencies, err error) {
	for end := time.Now().Add(duration); time.Now().Before(end); {
		d.next++
		body, err := csr(fmt.Sprintf("honest-%d", d.next))
		if err != nil {
			return l, err
		}
		began := time.Now()
		if err := d.enrol(ctx, body); err != nil {
			l.failed, l.last = l.failed+1, err
		} else {
			l.took = append(l.took, time.Since(began))
		}
		select {
		case <-ctx.Done():
			return l, ctx.Err()
		case <-time.After(pause):
		}
	}
	slices.Sort(l.took)
	return l, nil
}

func (d *honest) enrol(ctx context.Context, body []byte) error {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: d.h.tls(), DisableKeepAlives: true}}
	status, answer, err := d.h.est(ctx, client, "simpleenroll", d.grant, body)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("HTTP %d: %s", status, answer)
	}
	return err
}
