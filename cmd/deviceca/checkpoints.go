package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/audit"
)

// heads are the signed heads of the audit log, on their way out.
type heads struct {
	signed uint64                           // sequence of the newest
	newest atomic.Pointer[audit.Checkpoint] // that this process signed, for the webhook
	filed  uint64                           // sequence of the newest in the heads file
}

// auditKeySetting is the public half of the key that signs checkpoints, since the first of them.
const auditKeySetting = "audit.key"

// knowAuditKey compares the token's audit key with the one that signed before,
// and keeps it the first time. Another key signs nothing: its checkpoints would make
// the whole log look forged. The server serves nevertheless, and says so.
func (s *system) knowAuditKey(ctx context.Context) error {
	have, err := x509.MarshalPKIXPublicKey(s.audit.Public())
	if err != nil {
		return fmt.Errorf("the audit key: %w", err)
	}
	known, err := s.store.Setting(ctx, auditKeySetting)
	if errors.Is(err, ca.ErrNoRecord) {
		// A home from before it was kept: then the newest checkpoint tells.
		c, cerr := s.store.NewestCheckpoint(ctx)
		switch {
		case errors.Is(cerr, ca.ErrNoRecord) || cerr == nil && c.Verify(s.audit.Public()) == nil:
			return s.store.PutSetting(ctx, auditKeySetting, have)
		case cerr != nil:
			return cerr
		}
	} else if err != nil {
		return err
	} else if bytes.Equal(known, have) {
		return nil
	}
	s.auditFault = fmt.Errorf("the key %q on the token (SHA-256 %x) is not the audit key that signed before: put that one back, and restart", s.audit.Label(), sha256.Sum256(have))
	s.log.Error("the audit key on the token was replaced; the audit log's head is not signed", "err", s.auditFault)
	return nil
}

// keepCheckpoints signs the head of the audit log whenever it has moved since
// the last time, and once more at the end.
func (s *server) keepCheckpoints(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Audit.CheckpointEvery)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-tick.C:
		}
		// Not ctx: the last checkpoint is signed while stopping.
		done, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		if err := s.checkpoint(done); err != nil {
			s.log.Error("the audit log's head could not be signed", "err", err)
		}
		cancel()
		if err := s.fileHead(); err != nil {
			s.log.Error("the signed head of the audit log could not be written", "file", s.cfg.Audit.HeadsFile, "err", err)
		}
	}
}

// checkpoint signs the head of the log, if it moved.
func (s *server) checkpoint(ctx context.Context) error {
	head, err := s.store.Head(ctx)
	if errors.Is(err, ca.ErrNoRecord) || err == nil && head.Sequence == s.heads.signed {
		return nil
	}
	if err == nil {
		err = s.auditFault
	}
	if err != nil {
		return err
	}
	c, err := audit.Sign(s.audit, s.audit.Label(), head, time.Now())
	if err != nil {
		return err
	}
	if err := s.store.AddCheckpoint(ctx, c); err != nil {
		return err
	}
	s.heads.signed = head.Sequence
	s.heads.newest.Store(&c)
	return nil
}

// fileHead appends the newest head to the heads file, if it is not there yet: one
// that could not be written is made up for by the next.
func (s *server) fileHead() error {
	c := s.heads.newest.Load()
	if c == nil || c.Sequence == s.heads.filed || s.cfg.Audit.HeadsFile == "" {
		return nil
	}
	if err := audit.HeadFile(s.cfg.Audit.HeadsFile).Append(*c); err != nil {
		return err
	}
	s.heads.filed = c.Sequence
	return nil
}
