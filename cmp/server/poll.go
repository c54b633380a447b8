package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// defaultPoll is when to ask again where the core does not say.
const defaultPoll = time.Minute

// postpone answers a request that an administrator must approve (RFC 9483 §4.4):
// the first message with the status waiting, a pollReq with pollRep.
func (x *exchange) postpone(ctx context.Context, t *Transaction, why *ca.Error) ([]byte, error) {
	if err := x.spend(x.requester.Device); err != nil {
		return nil, err
	}
	// As long as the request itself, and a last answer.
	t.State, t.Expires = Polling, why.Until.Add(abandoned)
	reason := []string{printable(why.Reason)}
	var body cmp.Body
	if x.in.Body.Type() != cmp.PollReq {
		if x.asked == x.in {
			if err := x.remember(t); err != nil {
				return nil, err
			}
		}
		body = &cmp.CertResponses{Of: x.asked.Body.Type().Reply(),
			Responses: []cmp.CertResponse{{CertReqID: t.ReqID, Status: cmp.StatusInfo{Status: cmp.Waiting, Text: reason}}}}
	} else {
		after := why.RetryAfter
		if after <= 0 {
			after = defaultPoll
		}
		body = &cmp.PollReplies{Replies: []cmp.PollReply{{CertReqID: t.ReqID, CheckAfter: after.Round(time.Second), Reason: reason}}}
	}
	answer, err := x.keep(ctx, t, x.reply(body), why.Kind.String())
	if err != nil {
		return nil, err
	}
	x.Logger.LogAttrs(ctx, slog.LevelInfo, "waiting for approval", slog.String("protocol", "cmp"),
		slog.String("device", x.requester.Device), slog.String("actor", x.actor), slog.String("address", x.address))
	return answer, nil
}

// remember keeps the message that begins a transaction for a later one to go on with.
func (x *exchange) remember(t *Transaction) error {
	if len(x.raw) > maxKept {
		return refuse(cmp.BadRequest, "RFC 9483 §4.4", "the message has %d octets, and one that has to wait may have %d: leave out certificates that the CA knows", len(x.raw), maxKept)
	}
	t.Message, t.Profile = x.raw, x.profile
	return nil
}

// spend pays for what the ledger is about to keep for the requester and a device ("" if
// only the core knows which), beside a certificate.
func (x *exchange) spend(device string) error {
	return x.Authority.Spend(x.requester, device, x.address)
}

// poll answers pollReq: the request is put to the core once more.
func (x *exchange) poll(ctx context.Context, t *Transaction, b *cmp.PollRequests) ([]byte, error) {
	if t == nil || t.State != Polling {
		return nil, refuse(cmp.BadRequest, "RFC 9483 §4.4", "nothing is waiting in this transaction")
	}
	if err := x.in.Header.Check(cmp.HeaderRules{RecipNonces: [][]byte{t.Nonce}}); err != nil {
		return nil, err
	}
	// Clients poll for what they asked for by p10cr, which has no certReqId, as -1 or 0.
	if len(b.CertReqIDs) != 1 || b.CertReqIDs[0] != t.ReqID && !(t.ReqID == -1 && b.CertReqIDs[0] == 0) {
		return nil, refuse(cmp.BadRequest, "RFC 9483 §4.4", "pollReq does not name the certReqId of the request")
	}
	return x.goOn(ctx, t, nil)
}

// goOn takes up the request that began the transaction, unless a fault refuses it.
func (x *exchange) goOn(ctx context.Context, t *Transaction, fault error) ([]byte, error) {
	var err error
	if x.asked, err = limits.Parse(t.Message); err != nil {
		return nil, err
	}
	x.profile = t.Profile
	if err := x.checkOriginal(ctx); err != nil {
		return nil, err
	}
	w, err := x.read()
	if fault != nil {
		err = fault
	}
	if err == nil {
		var answer []byte
		if answer, err = x.carryOut(ctx, w, t); err == nil {
			return answer, nil
		}
	}
	return x.reject(ctx, w, err)
}
