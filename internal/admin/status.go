package admin

import (
	"path/filepath"
	"slices"
	"strconv"

	"github.com/deviceca/deviceca/ca"
)

const healthOK = "ok"

// status answers even while parts are away: that is when it is asked for.
func (c *call) status() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	out := Status{Version: c.Version, Policy: c.Core.Policy().Version(), Health: map[string]string{}, CAs: []CA{}}
	if !c.Started.IsZero() {
		started := c.Started.UTC()
		out.Started = &started
	}
	for part, err := range c.Health(c.r.Context()) {
		out.Health[part] = healthOK
		if err != nil {
			// Whoever may ask may know, and needs to.
			out.Health[part] = err.Error()
		}
	}
	var err error
	if out.Counts, err = c.Counts(c.r.Context()); err == nil {
		out.CAs, err = c.cas()
	}
	if err != nil {
		if ca.KindOf(err) != ca.Unavailable {
			return nil, err
		}
		out.Health["database"] = ca.AsError(err).Reason
	}
	return out, nil
}

// NewBackup asks for a backup into a directory of the server's host.
type NewBackup struct {
	Dir string `json:"dir"` // absolute; made by the backup
}

func (c *call) backup() (any, error) {
	var in NewBackup
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(in.Dir) {
		return nil, ca.Errorf(ca.Malformed, "dir must be an absolute path")
	}
	if c.Backup == nil {
		return nil, ca.Errorf(ca.Denied, "this server makes no backups")
	}
	report, err := c.Backup(c.r.Context(), in.Dir, c.who.Actor)
	if err != nil {
		return nil, err
	}
	return report, nil
}

func (c *call) recover() (any, error) {
	var in Recovery
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	for _, file := range slices.Concat(in.CRLs, in.Packs, in.Logs) {
		if !filepath.IsAbs(file) {
			return nil, ca.Errorf(ca.Malformed, "%s must be an absolute path", file)
		}
	}
	if c.Recover == nil {
		return nil, ca.Errorf(ca.Denied, "this server cannot recover")
	}
	report, err := c.Recover(c.r.Context(), in, c.who.Actor)
	if err != nil {
		return nil, err
	}
	return report, nil
}

func (c *call) listAudit() (any, error) {
	q, w, after, n, err := c.numberedWindow("kind", "device")
	if err != nil {
		return nil, err
	}
	f := EventFilter{Kind: ca.EventKind(q.Get("kind")), Device: q.Get("device"), Window: w}
	list, err := c.Audit.Events(c.r.Context(), f, after, n)
	return page(list, n, err, func(e AuditEvent) string { return windowKey(w, e.Time, strconv.FormatInt(e.ID, 10)) })
}

func (c *call) verifyAudit() (any, error) {
	if err := c.decode(&struct{}{}); err != nil {
		return nil, err
	}
	report, err := c.Audit.Verify(c.r.Context())
	if err != nil {
		return nil, err
	}
	return report, nil
}
