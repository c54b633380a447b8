package client

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
)

// Adviser is an Enroller whose CA says when it wants a certificate renewed.
type Adviser interface {
	// Advise asks for the certificate's renewal window, once. Nil without an error: the CA has none.
	Advise(ctx context.Context, cert *x509.Certificate) (*Advice, error)
}

// Advice is when a CA wants a certificate renewed (RFC 9773 §4.2).
type Advice struct {
	Start       time.Time `json:"start"`
	End         time.Time `json:"end"`
	Explanation string    `json:"explanation,omitempty"` // URL, "" for none
	// Again is when to ask again.
	Again time.Time `json:"again"`
}

// How long advice is good for (RFC 9773 §4.3.2, §4.3.3).
const (
	minAdvice = time.Minute
	maxAdvice = 24 * time.Hour
	noAdvice  = 6 * time.Hour // after none was to be had
)

// at is the certificate's own moment in the window.
func (a *Advice) at(cert *x509.Certificate) time.Time {
	return a.Start.Add(time.Duration(unit(cert) * float64(a.End.Sub(a.Start)))).Truncate(time.Second)
}

// empty reports whether there is no window in it, only when to ask again.
func (a *Advice) empty() bool { return a.Start.IsZero() }

// certificateID names a certificate to the CA (RFC 9773 §4.1): the authority's key identifier and the serial's DER content.
func certificateID(cert *x509.Certificate) string {
	serial := cert.SerialNumber.Bytes()
	if len(serial) == 0 || serial[0]&0x80 != 0 {
		serial = append([]byte{0}, serial...)
	}
	return b64.EncodeToString(cert.AuthorityKeyId) + "." + b64.EncodeToString(serial)
}

// Advise fetches the certificate's renewal information (RFC 9773 §4).
func (a *ACME) Advise(ctx context.Context, cert *x509.Certificate) (*Advice, error) {
	const op = "renewalInfo"
	a.mu.Lock()
	defer a.mu.Unlock()
	got, err := a.once(ctx, "directory", http.MethodGet, a.directory.String(), nil, jsonType)
	if err != nil {
		return nil, err
	}
	var resources acmeDirectory
	if err := got.decode(&resources); err != nil {
		return nil, err
	}
	if resources.RenewalInfo == "" || len(cert.AuthorityKeyId) == 0 {
		return nil, nil
	}
	if a.foreign(resources.RenewalInfo) {
		return nil, badACME(op, errors.New("it is at "+printable(resources.RenewalInfo)))
	}
	got, err = a.once(ctx, op, http.MethodGet, strings.TrimSuffix(resources.RenewalInfo, "/")+"/"+certificateID(cert), nil, jsonType)
	if err != nil {
		return nil, err
	}
	var info struct {
		Window struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
		Explanation string `json:"explanationURL"`
	}
	if err := got.decode(&info); err != nil {
		return nil, err
	}
	if w := info.Window; w.Start.IsZero() || !w.End.After(w.Start) || !w.Start.Before(cert.NotAfter) {
		return nil, badACME(op, errors.New("its window is none within the certificate's life"))
	}
	now := a.config.Now()
	wait := noAdvice
	if asked := retryAfter(got.header.Get("Retry-After"), now); asked > 0 {
		wait = min(max(asked, minAdvice), maxAdvice)
	}
	return &Advice{Start: info.Window.Start, End: info.Window.End, Explanation: printable(info.Explanation), Again: now.Add(wait)}, nil
}

// adviceFile holds what the CA last said about the renewal of the certificate.
const adviceFile = "renewal.json"

type keptAdvice struct {
	Certificate string `json:"certificate"` // see certificateID
	Advice
}

// loadAdvice is what is kept for the certificate; nil for nothing, or nothing that can be read.
func (s *Store) loadAdvice(cert *x509.Certificate) *Advice {
	text, err := s.read(adviceFile)
	if err != nil {
		return nil
	}
	var kept keptAdvice
	if json.Unmarshal(text, &kept) != nil || kept.Certificate != certificateID(cert) {
		return nil
	}
	return &kept.Advice
}

func (s *Store) saveAdvice(cert *x509.Certificate, a *Advice) error {
	text, err := json.Marshal(keptAdvice{certificateID(cert), *a})
	if err != nil {
		return saveError(adviceFile, err)
	}
	return s.write(adviceFile, append(text, '\n'), 0o644)
}

// advise brings what is kept of the CA's advice up to date, if the protocol has any and it is time
// to ask. Without an answer the old one stays; without any, the fraction of the validity counts.
func (r *run) advise(ctx context.Context, id *Identity) {
	kept := r.store.loadAdvice(id.Certificate)
	// Later than any advice is good for: the clock was ahead when it was kept.
	if kept != nil && r.now().Before(kept.Again) && !kept.Again.After(r.now().Add(maxAdvice)) {
		return
	}
	if _, custom := r.config.Enroller.(Adviser); r.config.Protocol != "acme" && !custom {
		return
	}
	e, _, err := r.enroller()
	if err != nil {
		r.log.Warn("the CA cannot be asked when to renew", "err", err)
		return
	}
	adviser, ok := e.(Adviser)
	if !ok {
		return
	}
	next, err := adviser.Advise(ctx, id.Certificate)
	if err != nil {
		r.log.Warn("the CA does not say when to renew", "err", err)
	}
	if next == nil {
		next = cmp.Or(kept, new(Advice))
		next.Again = r.now().Add(noAdvice)
	}
	if !next.empty() && (kept == nil || !next.Start.Equal(kept.Start) || !next.End.Equal(kept.End)) {
		r.log.Info("the CA says when to renew", "start", next.Start, "end", next.End, "why", next.Explanation)
		if at, last := next.at(id.Certificate), id.RenewAt(lastRenewal); at.After(last) {
			r.log.Warn("the CA says to renew when the certificate has all but expired; it is renewed before", "ca", at, "at", last)
		}
	}
	if err := r.store.saveAdvice(id.Certificate, next); err != nil {
		r.log.Warn("what the CA says about renewal is not kept", "err", err)
	}
}

// lastRenewal is the part of the validity after which a certificate is renewed at the latest, whatever the CA says.
const lastRenewal = 0.9

// renewAt is when to renew: when the CA says, else at the fraction of the validity.
func (r *run) renewAt(id *Identity) time.Time {
	if a := r.store.loadAdvice(id.Certificate); a != nil && !a.empty() {
		at, last := a.at(id.Certificate), id.RenewAt(lastRenewal)
		if at.After(last) {
			return last
		}
		return at
	}
	return id.RenewAt(r.config.RenewFraction)
}
