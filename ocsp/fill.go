package ocsp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Why there is no answer to keep.
var (
	errNeverIssued = errors.New("never issued")
	errPast        = errors.New("past retention")
)

// fetch makes an answer and keeps it. Those who ask for the same meanwhile wait
// for the same. It outlives the ctx of the one who came first.
func (r *Responder) fetch(ctx context.Context, v *variant, k key) (*entry, error) {
	f := r.takeOff(ctx, v, k)
	select {
	case <-f.done:
		return f.entry, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *Responder) takeOff(ctx context.Context, v *variant, k key) *flight {
	s := r.cache.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flight[k]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.flight[k] = f
		go r.fly(context.WithoutCancel(ctx), s, v, k, f)
	}
	return f
}

func (r *Responder) fly(ctx context.Context, s *shard, v *variant, k key, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, fillTimeout)
	defer cancel()
	entered := r.fills.enter(ctx, r.opts.Now())
	if entered == nil {
		defer r.fills.leave()
	}
	for {
		s.mu.Lock()
		drops := s.drops
		s.mu.Unlock()
		if f.entry, f.err = nil, entered; entered == nil {
			f.entry, f.err = r.make(ctx, v, k)
		}
		if s.land(k, f, drops) {
			return
		}
	}
}

// make signs one answer, or finds it in the shared cache.
func (r *Responder) make(ctx context.Context, v *variant, k key) (*entry, error) {
	st, err := r.opts.Source.Status(ctx, v.issuer.name, k.serial())
	if err != nil {
		return nil, err
	}
	now := r.opts.Now().UTC().Truncate(time.Second)
	if !st.Issued {
		return nil, errNeverIssued
	}
	until := st.NotAfter.Add(r.opts.Retention)
	if !now.Before(until) {
		return nil, errPast
	}
	e, err := r.shared(ctx, v, k, st, now)
	if err != nil {
		r.opts.Log.Warn("shared OCSP cache does not answer", "error", err)
	}
	if e == nil {
		if e, err = r.presign(ctx, v, k, st, now); err != nil {
			return nil, err
		}
	}
	e.revocation = st.Revocation
	e.refresh = min(e.window.refresh(k), until.Unix())
	e.until = min(e.window.nextUpdate, until.Unix())
	r.stats.filled.Add(1)
	return e, nil
}

// presign signs one answer and offers it to other servers.
func (r *Responder) presign(ctx context.Context, v *variant, k key, st Status, now time.Time) (*entry, error) {
	cred, err := v.issuer.signer.Credential(ctx)
	if err != nil {
		return nil, err
	}
	next := earlier(now.Add(r.opts.Validity), cred.NotAfter())
	this := now.Add(-r.opts.Backdate()).Truncate(time.Second)
	single := r.single(certID(v, k), this, next, st.Revocation)
	response, err := cred.sign(now, []SingleResponse{single}, nil)
	if err != nil {
		return nil, err
	}
	if r.opts.Shared != nil {
		if err := r.opts.Shared.Put(ctx, sharedKey(v, k, st), response, next); err != nil {
			r.opts.Log.Warn("shared OCSP cache does not take answers", "error", err)
		}
	}
	return newEntry(response, v.issuer.window(now, this, next, cred.certs)), nil
}

// shared looks for an answer that another server made in the present state and
// that is not due to be signed again.
func (r *Responder) shared(ctx context.Context, v *variant, k key, st Status, now time.Time) (*entry, error) {
	if r.opts.Shared == nil {
		return nil, nil
	}
	response, err := r.opts.Shared.Get(ctx, sharedKey(v, k, st))
	if err != nil || response == nil {
		return nil, err
	}
	p, err := ParseResponse(response)
	if err != nil {
		return nil, err
	}
	if p.Status != Successful || len(p.Responses) != 1 || string(p.Responses[0].ID.Raw) != string(certID(v, k)) ||
		(p.Responses[0].Status == Revoked) != (st.Revocation != nil) {
		return nil, errors.New("the answer under this key is another's")
	}
	w := v.issuer.window(p.ProducedAt, p.Responses[0].ThisUpdate, p.Responses[0].NextUpdate, nil)
	if now.Unix() >= w.refresh(k) || w.ahead(now) {
		return nil, nil
	}
	return newEntry(response, w), nil
}

func sharedKey(v *variant, k key, st Status) SharedKey {
	sk := SharedKey{Issuer: v.issuer.name, Serial: k.serial(), Form: v.form}
	if st.Revocation != nil {
		sk.State = st.Revocation.Sequence
	}
	return sk
}

// certID rebuilds the CertID that was asked with: its parts are in DER, so there is one way.
func certID(v *variant, k key) []byte {
	n := len(v.prefix) + 2 + 19
	id := append(make([]byte, 0, n+2), 0x30, byte(n))
	id = append(id, v.prefix...)
	id = append(id, 2, 19)
	return append(id, k[5:]...)
}

// single is the answer for a certificate that was issued.
func (r *Responder) single(id []byte, this, next time.Time, rev *ca.Revocation) SingleResponse {
	s := SingleResponse{ID: CertID{Raw: id}, ThisUpdate: this, NextUpdate: next}
	if rev != nil {
		s.Status, s.RevokedAt, s.Reason = Revoked, rev.Time, rev.Reason
	}
	if r.opts.Retention > 0 {
		s.ArchiveCutoff = this.Add(-r.opts.Retention)
	}
	return s
}

// window makes the header values, or finds those of the answer before.
func (is *issuer) window(signed, this, next time.Time, certs []byte) *window {
	is.mu.Lock()
	defer is.mu.Unlock()
	if w := is.last; w != nil && w.signed == signed.Unix() && w.thisUpdate == this.Unix() && w.nextUpdate == next.Unix() && string(w.certs) == string(certs) {
		return w
	}
	is.last = newWindow(signed, this, next, certs)
	return is.last
}

// newWindow takes for Last-Modified the time of the signature, not thisUpdate: an answer that replaces another
// must not look older than what a client has.
func newWindow(signed, this, next time.Time, certs []byte) *window {
	return &window{
		signed: signed.Unix(), thisUpdate: this.Unix(), nextUpdate: next.Unix(), certs: certs,
		lastModified: [1]string{signed.UTC().Format(http.TimeFormat)}, expires: [1]string{next.UTC().Format(http.TimeFormat)},
	}
}

// refresh is when an answer is due to be signed again: between 5/16 and 7/16 of
// its life, spread by the serial, so that with Run's interval it is before half of it.
func (w *window) refresh(k key) int64 {
	return w.signed + (w.nextUpdate-w.signed)*(640+int64(k[22]))/2048
}

// ahead reports whether answers begin in the future: the clock was ahead when they were signed.
func (w *window) ahead(now time.Time) bool { return w.thisUpdate > now.Unix() }

// newEntry takes a response apart; the strong validator is the SHA-256 of the
// whole (draft-ietf-lamps-rfc5019bis §6.2).
func newEntry(response []byte, w *window) *entry {
	sum := sha256.Sum256(response)
	head := make([]byte, len(response)-len(w.certs)) // exactly as long as needed
	copy(head, response)
	return &entry{head: head, window: w, etag: [1]string{`"` + hex.EncodeToString(sum[:]) + `"`}}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
