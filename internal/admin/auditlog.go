package admin

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/deviceca/deviceca/ca"
)

func (c *call) listAudit() (any, error) {
	q, w, after, n, err := c.numberedWindow("kind", "device")
	if err != nil {
		return nil, err
	}
	f := EventFilter{Kind: ca.EventKind(q.Get("kind")), Device: q.Get("device"), Window: w}
	list, err := c.Audit.Events(c.r.Context(), f, after, n)
	return page(list, n, err, func(e AuditEvent) string { return windowKey(w, e.Time, strconv.FormatInt(e.ID, 10)) })
}

// verifyAudit answers with lines (AuditLine) while it checks: a log of years takes minutes.
func (c *call) verifyAudit() (any, error) {
	if err := c.decode(&struct{}{}); err != nil {
		return nil, err
	}
	c.streaming = true
	c.w.Header().Set("Content-Type", "application/x-ndjson")
	c.w.Header().Set("Cache-Control", "no-store")
	out, ctl := json.NewEncoder(c.w), http.NewResponseController(c.w)
	say := func(line AuditLine) error {
		// The deadline of a socket: real time. What cannot be written shows at the end.
		ctl.SetWriteDeadline(time.Now().Add(importPatience))
		if err := out.Encode(line); err != nil {
			return err
		}
		return ctl.Flush()
	}
	if err := say(AuditLine{Progress: &AuditProgress{}}); err != nil {
		return nil, err
	}
	said := time.Now()
	report, err := c.Audit.Verify(c.r.Context(), func(p AuditProgress) {
		if time.Since(said) >= time.Second {
			said = time.Now()
			say(AuditLine{Progress: &p})
		}
	})
	if err != nil {
		c.Logger.Error("the audit log could not be verified", "actor", c.who.Actor, "err", err)
		return nil, say(AuditLine{Problem: problem(err)})
	}
	return nil, say(AuditLine{Report: &report})
}

func (c *call) checkHeads() (any, error) {
	var in HeadsToCheck
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if len(in.Heads) > MaxHeads {
		return nil, ca.Errorf(ca.Malformed, "%d heads at once: at most %d", len(in.Heads), MaxHeads)
	}
	fault, err := c.Audit.CheckHeads(c.r.Context(), in.Heads)
	if err != nil {
		return nil, err
	}
	return HeadsChecked{Fault: fault}, nil
}
