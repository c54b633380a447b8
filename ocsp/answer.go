package ocsp

import (
	"context"
	"errors"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Answer is what ServeHTTP writes for a request in DER: the whole response.
func (r *Responder) Answer(ctx context.Context, request []byte) []byte {
	s := r.pool.Get().(*scratch)
	defer r.pool.Put(s)
	e, status := r.answer(ctx, &s.request, request)
	if status != Successful {
		return ErrorResponse(status)
	}
	return append(append(make([]byte, 0, len(e.head)+len(e.window.certs)), e.head...), e.window.certs...)
}

// answer decides in this order, cheapest first, so that nothing is looked up or
// signed for a request that gets nothing:
//
//  1. what cannot be read is malformedRequest;
//  2. foreign, unknown and mixed issuers, and more certificates than
//     MaxCertIDs, are unauthorized;
//  3. each certificate's answer comes from memory, or is signed and kept; if
//     there is one certificate and no nonce, that is the answer;
//  4. all else is signed live, within the budget.
func (r *Responder) answer(ctx context.Context, q *Request, in []byte) (*entry, ResponseStatus) {
	if q.Parse(in) != nil {
		return nil, MalformedRequest
	}
	var forms [MaxCertIDs]*variant
	known := r.issuers.Load().byPrefix
	if q.Count > MaxCertIDs {
		return nil, Unauthorized
	}
	ids := q.IDs()
	for i := range ids {
		forms[i] = known[string(ids[i].issuer)]
		if forms[i] == nil || forms[i].issuer != forms[0].issuer {
			return nil, Unauthorized
		}
	}
	now := r.opts.Now()
	var found [MaxCertIDs]*entry // nil: never issued
	for i := range ids {
		var err error
		if found[i], err = r.lookup(ctx, forms[i], &ids[i], now); err != nil && !errors.Is(err, errNeverIssued) {
			return nil, r.refusal(ctx, err)
		}
	}
	if len(ids) == 1 && q.Nonce == nil && found[0] != nil {
		r.stats.presigned.Add(1)
		return found[0], Successful
	}
	e, err := r.signLive(ctx, q, forms[0].issuer, found[:len(ids)], now)
	switch {
	case err == nil:
		r.stats.live.Add(1)
		return e, Successful
	case errors.Is(err, errBusy) && len(ids) == 1 && found[0] != nil:
		// The most complete answer that can be given: a current one without the
		// nonce, which the asker then judges by its time (RFC 9654 §3.1,
		// draft-ietf-lamps-rfc5019bis §3.2.1 and §4).
		r.stats.refused.Add(1)
		return found[0], Successful
	}
	return nil, r.refusal(ctx, err)
}

// lookup finds the answer for one certificate in memory, or makes it.
func (r *Responder) lookup(ctx context.Context, v *variant, id *CertID, now time.Time) (*entry, error) {
	if len(id.Serial) != len(ca.Serial{}) || id.Serial[0] != 1 {
		return nil, errNeverIssued
	}
	k := makeKey(v, id.Serial)
	if e := r.cache.get(&k); e != nil && now.Unix() < e.until && !e.window.ahead(now) {
		return e, nil
	}
	return r.fetch(ctx, v, k)
}

// signLive signs for one asker. Of certificates whose answer is kept it says
// what that says, thisUpdate included: the time at which the status was last
// read; producedAt and the nonce show that the signature is new.
func (r *Responder) signLive(ctx context.Context, q *Request, is *issuer, found []*entry, now time.Time) (*entry, error) {
	if err := r.live.enter(ctx, now); err != nil {
		return nil, err
	}
	defer r.live.leave()
	cred, err := is.signer.Credential(ctx)
	if err != nil {
		return nil, err
	}
	now = now.UTC().Truncate(time.Second)
	this, end := now.Add(-r.opts.Backdate()).Truncate(time.Second), now.Add(r.opts.Validity)
	singles := make([]SingleResponse, len(found))
	for i, e := range found {
		id := q.ids[i].Raw
		if e == nil {
			next := earlier(now.Add(unknownLife), cred.NotAfter())
			singles[i] = SingleResponse{ID: CertID{Raw: id}, Status: Unknown, ThisUpdate: this, NextUpdate: next}
		} else {
			next := earlier(time.Unix(e.window.nextUpdate, 0), cred.NotAfter())
			singles[i] = r.single(id, time.Unix(e.window.thisUpdate, 0), next, e.revocation)
		}
		end = earlier(end, singles[i].NextUpdate)
	}
	response, err := cred.sign(now, singles, q.Nonce)
	if err != nil {
		return nil, err
	}
	return newEntry(response, newWindow(now, this, end, cred.certs)), nil
}

// refusal maps an error to what the asker is told, once.
func (r *Responder) refusal(ctx context.Context, err error) ResponseStatus {
	switch kind := ca.KindOf(err); {
	case errors.Is(err, errPast):
		return Unauthorized
	case errors.Is(err, errBusy), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		r.stats.refused.Add(1)
		return TryLater
	case kind == ca.Unavailable, kind == ca.RateLimited:
		return TryLater
	}
	r.stats.failed.Add(1)
	r.opts.Log.ErrorContext(ctx, "OCSP answer failed", "protocol", "ocsp", "outcome", InternalError.String(), "error", err)
	return InternalError
}
