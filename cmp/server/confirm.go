package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// confirm answers certConf (RFC 9483 §4.1.1). A rejection revokes, but in a transaction that was answered with a
// certificate of another one.
func (x *exchange) confirm(ctx context.Context, t *Transaction, b *cmp.Confirmations) ([]byte, error) {
	if t == nil || t.State == Working {
		return nil, refuse(cmp.BadRequest, "RFC 9483 §3.5", "there is no transaction that waits for this certConf")
	}
	if err := x.in.Header.Check(cmp.HeaderRules{RecipNonces: [][]byte{t.Nonce}}); err != nil {
		return nil, err
	}
	switch {
	case t.State == Overdue || t.State == Waiting && x.overdue(t):
		return nil, errOverdue
	case t.Serial.IsZero():
		return nil, refuse(cmp.BadRequest, "RFC 9483 §3.5", "no certificate was issued in this transaction")
	case t.State != Waiting && t.State != Repeated:
		return nil, refuse(cmp.CertConfirmed, "RFC 9483 §4.1.1", "the certificate was confirmed or rejected before")
	case len(b.List) != 1:
		return nil, refuse(cmp.BadRequest, "RFC 9483 §4.1.1", "%d CertStatus in certConf: send one", len(b.List))
	}
	c := b.List[0]
	// Clients confirm what they asked for by p10cr, which has no certReqId, as -1 or 0.
	if c.CertReqID != t.ReqID && !(t.ReqID == -1 && c.CertReqID == 0) {
		return nil, refuse(cmp.BadRequest, "RFC 9483 §4.1.1", "certReqId is not that of the request")
	}
	if s := c.Status; s != nil && (s.Status != cmp.Accepted && s.Status != cmp.Rejection || s.Status == cmp.Accepted && s.HasFailInfo()) {
		return nil, refuse(cmp.BadRequest, "RFC 9483 §4.1.1", "statusInfo is %s: confirm with accepted and no failInfo, or with rejection", printable(s.String()))
	}
	cert, err := x.Ledger.CertificateBySerial(ctx, t.Serial)
	if err != nil {
		return nil, err
	}
	if c.HashAlg.Present() && x.in.Header.Version < cmp.CMP2021 {
		return nil, refuse(cmp.BadRequest, "RFC 9483 §4.1.1", "hashAlg needs pvno 3")
	}
	if err := c.Matches(cert.DER); err != nil {
		return nil, wrongHash(t, err)
	}
	repeated := t.State == Repeated
	if repeated && c.Accepted() {
		if err := x.stillThere(ctx, cert); err != nil {
			return nil, err
		}
	}
	t.State, t.Confirm, t.Expires = Confirmed, x.digest(), x.keepUntil()
	if !c.Accepted() {
		// First revoked, then marked: a crash between leaves it to the sweeper.
		if !repeated {
			if err := x.takeBack(ctx, t, x.actor); err != nil {
				return nil, err
			}
		}
		t.State = Rejected
		x.Logger.LogAttrs(ctx, slog.LevelInfo, "certificate rejected by its device", slog.String("protocol", "cmp"),
			slog.String("device", cert.Device), slog.String("serial", cert.Serial.String()), slog.String("status", printable(c.Status.String())))
	}
	if t.ConfirmAnswer, err = x.send(&cmp.Confirm{}); err != nil {
		return nil, err
	}
	switch err := x.Ledger.ConfirmTransaction(ctx, t); {
	case errors.Is(err, ca.ErrNoRecord):
		return nil, refuse(cmp.CertConfirmed, "RFC 9483 §4.1.1", "the certificate was confirmed or rejected on another connection")
	case errors.Is(err, ca.ErrKeyTaken):
		return nil, x.keyTaken(ctx, t, repeated)
	case err != nil:
		return nil, err
	}
	x.outcome = string(t.State)
	return t.ConfirmAnswer, nil
}

var errOverdue = refuse(cmp.CertRevoked, "RFC 9810 §5.1.1.2", "certConf came after confirmWaitTime: the certificate is revoked")

// overdue reports whether the certConf of a transaction came too late, if it had to come at all.
func (x *exchange) overdue(t *Transaction) bool {
	return !t.Deadline.IsZero() && !x.now.Before(t.Deadline)
}

// stillThere reports that a certificate which was handed out again was revoked since, or is about to be.
func (x *exchange) stillThere(ctx context.Context, c *ca.Certificate) error {
	if c.Revocation != nil {
		return refuse(cmp.CertRevoked, "RFC 9810 §5.1.1.2", "the certificate was revoked meanwhile")
	}
	first, err := x.Ledger.WaitingTransaction(ctx, c.Serial)
	switch {
	case errors.Is(err, ca.ErrNoRecord):
		return nil
	case err == nil && x.overdue(first):
		return errOverdue
	}
	return err
}

// keyTaken takes back a certificate whose proof of possession came after that of another device.
func (x *exchange) keyTaken(ctx context.Context, t *Transaction, repeated bool) error {
	refusal := ca.Errorf(ca.BadKey, "this key is known under another device: make a new key")
	if repeated {
		return refusal
	}
	t.State, t.ConfirmAnswer = Rejected, nil
	err := x.takeBack(ctx, t, x.actor)
	if err == nil {
		err = x.Ledger.ConfirmTransaction(ctx, t)
	}
	return errors.Join(refusal, err)
}

// takeBack revokes the certificate of a transaction; that it is revoked already is as good.
func (s *Server) takeBack(ctx context.Context, t *Transaction, actor string) error {
	_, err := s.Authority.Revoke(ctx, t.Serial, ca.ReasonCessationOfOperation, nil, actor)
	if ca.KindOf(err) == ca.Conflict && err != nil {
		return nil
	}
	return err
}

// sweepGrace keeps the sweeper away from a certConf that came at the last moment
// and is still being worked on.
const sweepGrace = 30 * time.Second

const sweepBatch = 100

// Sweep revokes every certificate whose certConf did not come in time (RFC 9810
// §5.1.1.2), and forgets the transactions that nobody can ask about any more.
func (s *Server) Sweep(ctx context.Context) error {
	now := s.Now()
	for {
		late, err := s.Ledger.OverdueTransactions(ctx, now.Add(-sweepGrace), sweepBatch)
		if err != nil {
			return err
		}
		for _, t := range late {
			if err := s.takeBack(ctx, &t, "system:cmp"); err != nil {
				return err
			}
			t.State, t.Expires = Overdue, now.Add(2*s.TimeWindow+abandoned)
			if err := s.Ledger.ConfirmTransaction(ctx, &t); err != nil && !errors.Is(err, ca.ErrNoRecord) {
				return err
			}
			s.Logger.LogAttrs(ctx, slog.LevelWarn, "certificate was never confirmed, and is revoked", slog.String("protocol", "cmp"),
				slog.String("actor", t.Actor), slog.String("serial", t.Serial.String()))
		}
		if len(late) < sweepBatch {
			break
		}
	}
	_, err := s.Ledger.PruneTransactions(ctx, now)
	return err
}
