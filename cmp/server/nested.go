package server

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// batchAtOnce is how many messages of a batch are worked on at a time: so many
// that they share the ledger's commits, so few that a batch is no flood.
const batchAtOnce = 8

// nested answers a message around other messages (RFC 9483 §5.2.2), which a
// registered registration authority has signed. It is one of two things, told apart by the transactionID:
//
//   - Around one message, with its transactionID: the RA approves of it. The
//     answer is that message's own, not wrapped. See [exchange.checkApproval].
//   - Around several, or with a transactionID of its own: a batch. Each message
//     counts for itself alone, and the answer is a batch of all answers, in
//     the same order. What is wrong with the batch is told of the batch.
//
// Both may hold messages that an RA approves of, so that several RAs may stand one
// behind the other; a batch is never within anything. Depth and number are bounded by [limits].
func (x *exchange) nested(ctx context.Context, b *cmp.NestedMessages) ([]byte, error) {
	approves := len(b.Messages) == 1 && bytes.Equal(b.Messages[0].Header.TransactionID, x.in.Header.TransactionID)
	rules := cmp.HeaderRules{Now: func() time.Time { return x.now }, TimeWindow: x.TimeWindow}
	if !approves { // else it is the header within that counts
		rules.First, rules.RequireTime = true, true
	}
	if err := x.in.Header.Check(rules); err != nil {
		return nil, err
	}
	if err := x.authenticate(ctx, nil); err != nil {
		return nil, err
	}
	switch {
	case x.requester.RA == nil:
		return nil, refuse(cmp.NotAuthorized, "RFC 9483 §5.2.2", "messages are nested by registered registration authorities alone: send the message itself")
	case !x.allows(cmp.Nested):
		return nil, refuse(cmp.BadRequest, "RFC 9811 §3.3", "nested is not for the path of operation %s", x.operation)
	case approves && !bytes.Equal(b.Messages[0].Header.SenderNonce, x.in.Header.SenderNonce):
		return nil, refuse(cmp.BadSenderNonce, "RFC 9483 §5.2.2.1", "the senderNonce is not that of the message within, which has the same transactionID")
	case approves:
		return x.within(b.Messages[0], x.requester.RA).answer(ctx)
	case x.depth > 0:
		return nil, refuse(cmp.BadRequest, "RFC 9483 §5.2.2.2", "a batch within another message: send it by itself")
	}
	return x.batch(ctx, b.Messages)
}

// within is the exchange of a message within this one. by is the RA that approves
// of it, nil in a batch.
func (x *exchange) within(m *cmp.Message, by *ca.RA) *exchange {
	inner := &exchange{Server: x.Server, target: target{profile: x.profile}, raw: m.Raw(), in: m, address: x.address, now: x.now,
		room: x.room, depth: x.depth + 1, approvers: slices.Clone(x.approvers)}
	if by != nil {
		inner.approvers = append(inner.approvers, by)
	}
	return inner
}

// maxAnswer bounds one answer within a batch, in octets: one that holds CRLs.
const maxAnswer = maxLists + MaxBody

// batch answers each message as if it had come by itself.
func (x *exchange) batch(ctx context.Context, messages []*cmp.Message) ([]byte, error) {
	for _, m := range messages {
		if bytes.Equal(m.Header.TransactionID, x.in.Header.TransactionID) {
			return nil, refuse(cmp.BadRequest, "RFC 9483 §5.2.2.2", "a batch has a transactionID of its own, and this one is also that of a message in it")
		}
	}
	switch there, err := x.earlier(ctx); {
	case err != nil:
		return nil, err
	case there != nil:
		return nil, errInUse
	}
	answers := make([]*cmp.Message, len(messages))
	var all errgroup.Group
	all.SetLimit(batchAtOnce)
	for i, m := range messages {
		all.Go(func() error {
			raw, err := x.within(m, nil).answer(ctx)
			if err != nil {
				return err
			}
			answers[i], err = cmp.Limits{Size: maxAnswer}.Parse(raw)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	return x.send(&cmp.NestedMessages{Messages: answers})
}

// answer runs the exchange and notes how it went. The error is that there is no
// answer at all: a refusal is one.
func (x *exchange) answer(ctx context.Context) ([]byte, error) {
	start := time.Now()
	answer, err := x.run(ctx)
	x.note(ctx, x.address, x.op(), x.outcome, err, start)
	if answer == nil {
		return nil, errors.Join(errors.New("no answer could be made"), err)
	}
	return answer, nil
}

// checkApproval: who approves of a device's message must be free to act for that
// device. Approval gives the device no more than it has by itself. Where only the
// request says which device it is for, and for its level, the core looks.
func (x *exchange) checkApproval() error {
	for _, ra := range x.approvers {
		if id := x.requester.Device; id != "" && !ra.Covers(id) {
			return refuse(cmp.NotAuthorized, "RFC 9483 §5.2.2.1", "registration authority %s may not approve for device %s: its names are others", ra.Name, id)
		}
	}
	return nil
}
