package admin

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

const (
	importBatch = 1000 // what the core takes at once
	// importPatience is how long one batch may take to arrive or to be
	// answered; the listener's own timeouts are meant for small requests.
	importPatience = 2 * time.Minute
)

// importDevices reads devices as NDJSON (ImportLine) and answers as NDJSON
// (ImportReport) while it reads: each failure, the counts after each batch, the
// counts at the end. Memory is bounded by one batch. What is in the
// inventory already is counted and left as it is, so that an import that was
// cut off is simply run again.
func (c *call) importDevices() (any, error) {
	if err := c.wantType("application/x-ndjson"); err != nil {
		return nil, err
	}
	// HTTP/1 would otherwise swallow the rest of the request before the first answer.
	ctl := http.NewResponseController(c.w)
	if err := ctl.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	c.streaming = true
	c.w.Header().Set("Content-Type", "application/x-ndjson")
	c.w.Header().Set("Cache-Control", "no-store")
	c.w.Header().Set("Connection", "close") // an import that ends early leaves unread lines on it
	c.w.WriteHeader(http.StatusOK)
	if err := ctl.Flush(); err != nil {
		return nil, err
	}

	im := importer{call: c, out: json.NewEncoder(c.w), ctl: ctl, levels: map[string]bool{}}
	lines := bufio.NewScanner(c.r.Body)
	lines.Buffer(make([]byte, 0, 4<<10), MaxLine)
	im.wait()
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		im.counts.Read++
		im.take(lines.Bytes())
		if len(im.batch) == importBatch {
			if err := im.flush(); err != nil {
				return nil, im.end(err)
			}
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = ca.Errorf(ca.Malformed, "a line is longer than %d octets", MaxLine)
		} else {
			err = ca.Errorf(ca.Malformed, "the import broke off: %w", err)
		}
		return nil, im.end(errors.Join(err, im.flush()))
	}
	if err := im.flush(); err != nil {
		return nil, im.end(err)
	}
	done := ImportReport{Done: &im.counts}
	if len(im.levels) > 0 { // no name stands for all levels
		done.Warnings = c.warnings(slices.Sorted(maps.Keys(im.levels))...)
	}
	return nil, im.out.Encode(done)
}

type importer struct {
	*call
	out    *json.Encoder
	ctl    *http.ResponseController
	counts ImportCounts
	batch  []device.Device
	lines  []int           // of each device of the batch
	levels map[string]bool // of devices added
}

// take checks one line by itself and puts it in the batch.
func (im *importer) take(raw []byte) {
	var in ImportLine
	if err := strictJSON(raw, &in); err != nil {
		im.failed(ImportFailure{Line: int(im.counts.Read), Error: ca.AsError(err).Reason})
		return
	}
	if in.Line == 0 {
		in.Line = int(im.counts.Read)
	}
	if in.State == "" {
		in.State = device.Claimed
	}
	reason := ""
	if err := device.CheckNewID(in.ID); err != nil {
		reason = err.Error()
	} else if in.Level == "" {
		reason = "level is missing: name a trust level of the policy"
	} else if in.State != device.Claimed && in.State != device.Manufactured {
		// The other states come of what a device does here, or of what is done to it.
		reason = "state must be claimed or manufactured"
	}
	if reason != "" {
		im.failed(ImportFailure{Line: in.Line, ID: in.ID, Error: reason})
		return
	}
	im.batch = append(im.batch, device.Device{ID: in.ID, Level: in.Level, Group: in.Group, State: in.State})
	im.lines = append(im.lines, in.Line)
}

func (im *importer) failed(f ImportFailure) {
	im.counts.Failed++
	im.out.Encode(ImportReport{Failure: &f}) // a lost client shows at the next flush
}

// flush enters the batch and reports.
func (im *importer) flush() error {
	if len(im.batch) > 0 {
		results, err := im.Core.ImportDevices(im.r.Context(), im.batch, im.who.Actor)
		if err != nil {
			return err
		}
		if len(results) != len(im.batch) {
			return ca.Errorf(ca.Internal, "%d results for %d devices", len(results), len(im.batch))
		}
		for i, err := range results {
			switch {
			case err == nil:
				im.counts.Added++
				im.levels[im.batch[i].Level] = true // the policy has it
			case errors.Is(err, ca.ErrRecorded) || ca.KindOf(err) == ca.Conflict:
				if err := im.there(i); err != nil {
					return err
				}
			default:
				im.failed(ImportFailure{Line: im.lines[i], ID: im.batch[i].ID, Error: problem(err).Error()})
			}
		}
		im.batch, im.lines = slices.Delete(im.batch, 0, len(im.batch)), im.lines[:0]
	}
	im.wait()
	counts := im.counts
	if err := im.out.Encode(ImportReport{Progress: &counts}); err != nil {
		return err
	}
	return im.ctl.Flush()
}

// end reports why the import stops before its end. The status line is gone, so
// the problem is the last line instead of the counts.
func (im *importer) end(err error) error {
	p := problem(err)
	if p.Status >= http.StatusInternalServerError {
		im.Logger.Error("import failed", "actor", im.who.Actor, "outcome", p.Kind, "err", err)
	}
	if err := im.out.Encode(ImportReport{Problem: p}); err != nil && err != io.ErrClosedPipe {
		return err
	}
	return nil
}

// wait gives the client time for another batch.
func (im *importer) wait() {
	until := time.Now().Add(importPatience) // the deadline of a socket: real time
	im.ctl.SetReadDeadline(until)
	im.ctl.SetWriteDeadline(until)
}
