package crl

import (
	"fmt"
	"slices"
	"time"
)

// comeBack forgets lists that begin in the future: the clock was ahead when they were
// made. They are made again at once, under higher numbers, since relying parties take them for not valid yet. What
// expired meanwhile by the wrong clock counts as listed never, and is on the next scheduled list again.
func (p *Publisher) comeBack(is *publication, now time.Time) {
	var latest time.Time
	for _, s := range is.state.Scopes {
		for _, b := range slices.Concat(s.Bases, []base{s.Scheduled}) {
			latest = later(latest, b.ThisUpdate)
		}
		if s.ahead(now) {
			s.Bases, s.Scheduled, s.Retired = nil, base{}, time.Time{}
		}
		if s.Retired.After(now) {
			s.Retired = time.Time{}
		}
		if s.deltaDue.Sub(now) > p.opts.DeltaInterval {
			s.deltaDue = time.Time{}
		}
	}
	if latest.After(now) {
		p.opts.Log.Warn("CRLs begin in the future: the clock of this server was ahead, or is behind now; they are made again", "issuer", is.Name, "begin", latest)
		is.warn(fmt.Sprintf("the CRLs of %s began in the future (%s): the clock of this server was ahead when they were made; new ones were made at %s, or are as soon as the token answers",
			is.Name, latest.Format(time.RFC3339), now.Format(time.RFC3339)))
	}
}

// ahead reports whether a list of this scope begins in the future.
func (s *scope) ahead(now time.Time) bool {
	for _, b := range s.Bases {
		if b.ThisUpdate.After(now) {
			return true
		}
	}
	return s.Scheduled.ThisUpdate.After(now)
}

func (is *publication) warn(text string) {
	is.warned.Lock()
	defer is.warned.Unlock()
	is.warning = text
}

// Warnings say which CAs' lists were found to begin in the future since the start.
func (p *Publisher) Warnings() (all []string) {
	for _, is := range p.issuers {
		is.warned.Lock()
		if is.warning != "" {
			all = append(all, is.warning)
		}
		is.warned.Unlock()
	}
	return all
}
