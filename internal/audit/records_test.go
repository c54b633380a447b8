package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"
)

// tables are records held in memory, and the log of what happened to them, each event an entry.
type tables struct {
	memory
	certificates []Certificate
	lines        []Line
	issuers      []Issuer
	extent       *Extent
}

func (r *tables) Issuers(context.Context) ([]Issuer, error) { return r.issuers, nil }

// enter enters two CAs, and revokes one of them.
func (r *tables) enter() {
	r.issuers = []Issuer{{Name: "issuing-1", Digest: "one", Created: r.at()}, {Name: "issuing-2", Digest: "two", Created: r.at()}}
	r.log(said{Kind: kindIssuerAdded, Issuer: "issuing-1", Digest: "one"}, said{Kind: kindIssuerAdded, Issuer: "issuing-2", Digest: "two"})
	r.issuers[0].Revoked, r.issuers[0].Reason = r.at(), "superseded"
	r.log(said{Kind: kindIssuerRevoked, Issuer: "issuing-1", Reason: "superseded"})
}

func (r *tables) Extent(ctx context.Context) (Extent, error) {
	if r.extent != nil {
		return *r.extent, nil
	}
	x, err := r.memory.Extent(ctx)
	for _, c := range r.certificates {
		x.Certificate = max(x.Certificate, c.Number)
	}
	for _, l := range r.lines {
		x.Line = max(x.Line, l.Number)
	}
	return x, err
}

func (r *tables) Certificates(_ context.Context, upTo int64) iter.Seq2[Certificate, error] {
	return func(yield func(Certificate, error) bool) {
		for _, c := range r.certificates {
			if c.Number <= upTo && !yield(c, nil) {
				return
			}
		}
	}
}

func (r *tables) Certificate(_ context.Context, serial string) (Certificate, bool, error) {
	i := slices.IndexFunc(r.certificates, func(c Certificate) bool { return c.Serial == serial })
	if i < 0 {
		return Certificate{}, false, nil
	}
	return r.certificates[i], true, nil
}

func (r *tables) Lines(_ context.Context, upTo int64) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		for _, l := range r.lines {
			if l.Number <= upTo && !yield(l, nil) {
				return
			}
		}
	}
}

func (r *tables) Line(_ context.Context, serial string) (found Line, is bool, err error) {
	for _, l := range r.lines {
		if l.Serial == serial {
			found, is = l, true
		}
	}
	return found, is, nil
}

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// at is the time of the next entry.
func (r *tables) at() time.Time { return noon.Add(time.Duration(len(r.entries)) * time.Minute) }

func (r *tables) log(events ...said) {
	s := uint64(len(r.entries) + 1)
	at := r.at()
	for _, e := range events {
		e.Time = at
		body, err := json.Marshal(map[string]any{"time": e.Time, "kind": e.Kind, "device": e.Device, "issuer": e.Issuer, "serial": e.Serial, "digest": e.Digest, "reason": e.Reason, "revocation": e.Revocation})
		if err != nil {
			panic(err)
		}
		r.events[s] = append(r.events[s], body)
	}
	r.entries = append(r.entries, Entry{Sequence: s, Time: at})
	r.link(int(s) - 1)
}

// Log fills in what the database finds events by.
func (r *tables) Log(ctx context.Context, upTo uint64) iter.Seq2[Logged, error] {
	return func(yield func(Logged, error) bool) {
		for l, err := range r.memory.Log(ctx, upTo) {
			for i := range l.Events {
				var e said
				if err := json.Unmarshal(l.Events[i].Body, &e); err != nil {
					panic(err)
				}
				l.Events[i].Kind, l.Events[i].Device = e.Kind, strings.ToLower(e.Device)
			}
			if !yield(l, err) {
				return
			}
		}
	}
}

func (r *tables) issue(serials ...string) {
	var events []said
	for _, serial := range serials {
		digest := "digest of " + serial
		r.certificates = append(r.certificates, Certificate{Number: int64(len(r.certificates) + 1), Serial: serial, Issuer: "issuing-1", Device: "Lamp", Issued: r.at(), Digest: digest})
		events = append(events, said{Kind: kindIssued, Device: "lamp", Issuer: "issuing-1", Serial: serial, Digest: digest})
	}
	r.log(events...)
}

// line enters lines, in place of holds.
func (r *tables) line(reason string, serials ...string) {
	next := int64(len(r.entries)) * 100
	for _, serial := range serials {
		next++
		r.lines = slices.DeleteFunc(r.lines, func(l Line) bool { return l.Serial == serial && l.Reason == reasonHold })
		r.lines = append(r.lines, Line{Number: next, Serial: serial, Device: "Lamp", Released: reason == "", Reason: reason, Time: r.at(), Text: text(reason, r.at())})
	}
}

func text(reason string, at time.Time) string {
	if reason == "" {
		reason = "released"
	}
	return reason + " " + at.UTC().Format(time.RFC3339)
}

// says fills in what events of this version say of a revocation.
func (r *tables) says(e said) said {
	e.Revocation = text(e.Reason, r.at())
	return e
}

func (r *tables) revoke(reason string, serials ...string) {
	r.line(reason, serials...)
	var events []said
	for _, serial := range serials {
		events = append(events, r.says(said{Kind: kindRevoked, Device: "lamp", Serial: serial, Reason: reason}))
	}
	r.log(events...)
}

func (r *tables) release(serial string) {
	r.line("", serial)
	r.log(r.says(said{Kind: kindReleased, Device: "lamp", Serial: serial}))
}

// revokeUnnamed is how several were revoked before each had its event.
func (r *tables) revokeUnnamed(reason string, serials ...string) {
	r.line(reason, serials...)
	r.log(said{Kind: kindRevoked, Device: "lamp", Reason: fmt.Sprintf("%d certificates: %s", len(serials)+1, reason)}) // one was revoked meanwhile
}

func (r *tables) retireUnnamed(serials ...string) {
	r.line("cessationOfOperation", serials...)
	r.log(said{Kind: kindMoved, Device: "lamp", Reason: "active to retired"})
}

func (r *tables) drop(serial string) {
	r.lines = slices.DeleteFunc(r.lines, func(l Line) bool { return l.Serial == serial })
}

func TestRecords(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(r *tables)
		want    Report // of what is compared
		fault   string // part of it; "" if there is none
	}{
		"everything": {func(r *tables) {
			r.issue("a", "b", "c")
			r.revoke("keyCompromise", "b")
			r.issue("d")
			r.revoke(reasonHold, "a")
			r.revoke(reasonHold, "c")
			r.revoke(reasonHold, "d")
			r.release("a")
			r.revoke(reasonHold, "a")
			r.release("a")
			r.revoke("superseded", "c")
			r.log(said{Kind: "device.added", Device: "Other"})
		}, Report{Certificates: 4, Revocations: 5}, ""},
		"of before the revocation was in the event": {func(r *tables) {
			r.issue("a", "b")
			for _, reason := range []string{reasonHold, "superseded"} {
				r.line(reason, "a")
				r.log(said{Kind: kindRevoked, Device: "lamp", Serial: "a", Reason: reason})
			}
			r.line(reasonHold, "b")
			r.log(said{Kind: kindRevoked, Device: "lamp", Serial: "b", Reason: reasonHold})
			r.line("", "b")
			r.log(said{Kind: kindReleased, Device: "lamp", Serial: "b"})
		}, Report{Certificates: 2, Revocations: 2}, ""},
		"entered to be revoked, as of yesterday": {func(r *tables) {
			r.issue("a")
			r.certificates = append(r.certificates, Certificate{Number: 2, Serial: "x"})
			r.lines = append(r.lines, Line{5, "x", "", false, "keyCompromise", noon, "keyCompromise yesterday", ""})
			r.log(said{Kind: kindRevoked, Serial: "x", Reason: "keyCompromise, not in the ledger before", Revocation: "keyCompromise yesterday"})
			r.issue("b")
			r.certificates[2].Number = 3
		}, Report{Certificates: 3, Revocations: 1}, ""},
		"invalid since another day": {func(r *tables) {
			r.issue("a")
			r.revoke("keyCompromise", "a")
			r.lines[0].Text += " invalid since then"
		}, Report{}, "was revoked (keyCompromise) at 2030-01-01T12:01:00Z, says the log, and the ledger has revoked (keyCompromise) at 2030-01-01T12:01:00Z invalid since then"},
		"several without names": {func(r *tables) {
			r.issue("a", "b", "c", "d")
			r.revoke(reasonHold, "a")
			r.revokeUnnamed("superseded", "a", "b")
			r.retireUnnamed("c", "d")
			r.log(said{Kind: kindMoved, Device: "lamp", Reason: "claimed to retired"})
		}, Report{Certificates: 4, Revocations: 4, Unnamed: 4}, ""},
		"a retirement without names, in pages": {func(r *tables) {
			r.issue("a", "b", "c")
			r.revoke(reasonHold, "b")
			retired := r.at()
			r.retireUnnamed("a")
			r.revoke("superseded", "c")
			r.lines = slices.DeleteFunc(r.lines, func(l Line) bool { return l.Serial == "b" })
			r.lines = append(r.lines, Line{9999, "b", "Lamp", false, "cessationOfOperation", retired, text("cessationOfOperation", retired), ""})
			r.log(said{Kind: kindRevoked, Device: "lamp", Reason: "1 certificates: cessationOfOperation"})
		}, Report{Certificates: 3, Revocations: 3, Unnamed: 2}, ""},
		"a retirement without names, and with them from the second page on": {func(r *tables) {
			r.issue("a", "b")
			retired := r.at()
			r.retireUnnamed("a")
			r.lines = append(r.lines, Line{9999, "b", "Lamp", false, "cessationOfOperation", retired, text("cessationOfOperation", retired), ""})
			r.log(said{Kind: kindRevoked, Device: "lamp", Serial: "b", Reason: "cessationOfOperation", Revocation: text("cessationOfOperation", retired)})
		}, Report{Certificates: 2, Revocations: 2, Unnamed: 1}, ""},
		"a retirement with names, and one revocation too many": {func(r *tables) {
			r.issue("a", "b")
			r.line("cessationOfOperation", "a", "b")
			r.log(r.says(said{Kind: kindMoved, Device: "lamp", Reason: "active to retired", Revocation: "x"}),
				r.says(said{Kind: kindRevoked, Device: "lamp", Serial: "a", Reason: "cessationOfOperation"}))
		}, Report{}, "certificate b as revoked (cessationOfOperation)"},
		"several without names, and one too many": {func(r *tables) {
			r.issue("a", "b", "c", "d")
			r.revokeUnnamed("superseded", "a")
			r.lines = append(r.lines, Line{9998, "b", "Lamp", false, "superseded", r.lines[0].Time, text("superseded", noon), ""}, Line{9999, "c", "Lamp", false, "superseded", r.lines[0].Time, text("superseded", noon), ""})
		}, Report{}, "certificate c as revoked (superseded)"},
		"a device without certificates": {func(r *tables) { r.retireUnnamed() }, Report{}, ""},
		"out of order": {func(r *tables) {
			r.issue("a", "b", "c", "d")
			r.certificates[0], r.certificates[2] = r.certificates[2], r.certificates[0]
			r.certificates[0].Number, r.certificates[2].Number = 1, 3
		}, Report{Certificates: 4}, ""},
		"not revoked": {func(r *tables) { r.issue("a"); r.revoke("keyCompromise", "a"); r.drop("a") }, Report{}, "the ledger has it as good"},
		"another reason": {func(r *tables) {
			r.issue("a")
			r.revoke("keyCompromise", "a")
			r.lines[0].Reason, r.lines[0].Text = "superseded", text("superseded", r.lines[0].Time)
		}, Report{},
			"certificate a was revoked (keyCompromise) at 2030-01-01T12:01:00Z, says the log, and the ledger has revoked (superseded)"},
		"on hold no more":  {func(r *tables) { r.issue("a"); r.revoke(reasonHold, "a"); r.drop("a") }, Report{}, "revoked (certificateHold)"},
		"released nowhere": {func(r *tables) { r.issue("a"); r.revoke(reasonHold, "a"); r.release("a"); r.drop("a") }, Report{}, "released from hold"},
		"a release slipped in": {func(r *tables) {
			r.issue("a", "b")
			r.revoke(reasonHold, "a")
			r.lines = []Line{{500, "a", "Lamp", true, "", r.at(), "", ""}}
		}, Report{}, "as released from hold"},
		"a revocation slipped in first": {func(r *tables) {
			r.issue("a", "b")
			r.revoke("superseded", "a")
			r.lines = append([]Line{{1, "b", "Lamp", false, "superseded", r.at(), "", ""}}, r.lines...)
		}, Report{}, "certificate b as revoked (superseded)"},
		"a revocation of another certificate": {func(r *tables) { r.issue("a"); r.revoke("superseded", "a"); r.lines[0].Fault = "x" }, Report{}, "is not of that certificate: x"},
		"a certificate slipped in between": {func(r *tables) {
			r.issue("a", "b", "c")
			r.certificates[1].Serial = "e"
			r.certificates = append(r.certificates, Certificate{Number: 4, Serial: "b", Issuer: "issuing-1", Device: "Lamp", Digest: "digest of b"})
		}, Report{}, "certificate e of device \"Lamp\" is in the ledger"},
		"a certificate gone":              {func(r *tables) { r.issue("a", "b"); r.certificates = r.certificates[:1] }, Report{}, "certificate b was issued to device \"lamp\""},
		"all certificates gone":           {func(r *tables) { r.issue("a", "b"); r.certificates = nil }, Report{}, "certificate a was issued"},
		"a certificate exchanged":         {func(r *tables) { r.issue("a"); r.certificates[0].Digest = "x" }, Report{}, "another one than was issued"},
		"a certificate of another issuer": {func(r *tables) { r.issue("a"); r.certificates[0].Issuer = "issuing-2" }, Report{}, "by issuing-2"},
		"issued twice": {func(r *tables) {
			r.issue("a")
			r.log(said{Kind: kindIssued, Device: "lamp", Issuer: "issuing-1", Serial: "a", Digest: "digest of a"})
		}, Report{}, "issued twice"},
		"more than fit in memory": {func(r *tables) {
			r.issue("a")
			for n := range maxLoose + 10 {
				r.certificates = append(r.certificates, Certificate{Number: int64(n + 2), Serial: fmt.Sprint("x", n), Issued: r.at()})
			}
		}, Report{}, "certificate x0 "},
		"what happened meanwhile": {func(r *tables) {
			r.issue("a", "b")
			r.revoke(reasonHold, "a")
			x, _ := r.Extent(context.Background())
			r.extent = &x
			r.release("a")
			r.issue("c")
			r.revoke("superseded", "b")
		}, Report{Certificates: 2}, ""},
		"CAs":                    {(*tables).enter, Report{}, ""},
		"a CA not revoked":       {func(r *tables) { r.enter(); r.issuers[0].Revoked, r.issuers[0].Reason = time.Time{}, "" }, Report{}, "CA issuing-1 is not revoked, and the log says revoked (superseded)"},
		"a CA revoked":           {func(r *tables) { r.enter(); r.issuers[1].Revoked = noon }, Report{}, "CA issuing-2 is revoked"},
		"a CA's certificate":     {func(r *tables) { r.enter(); r.issuers[1].Digest = "x" }, Report{}, "the certificate of CA issuing-2 is another"},
		"a CA gone":              {func(r *tables) { r.enter(); r.issuers = r.issuers[:1] }, Report{}, "CA issuing-2 was entered"},
		"a CA slipped in":        {func(r *tables) { r.enter(); r.issuers = append(r.issuers, Issuer{Name: "x", Created: noon}) }, Report{}, "CA x is in the ledger"},
		"a CA entered meanwhile": {func(r *tables) { r.enter(); r.issuers = append(r.issuers, Issuer{Name: "x", Created: r.at()}) }, Report{}, ""},
		"events dropped": {func(r *tables) {
			r.issue("a", "b")
			r.revoke("superseded", "a")
			r.issue("c")
			r.dropped(2)
			r.revoke("superseded", "c")
		}, Report{Certificates: 1, Revocations: 1, Unchecked: 3}, ""},
		"events dropped, and one revocation too many": {func(r *tables) {
			r.issue("a", "b")
			r.dropped(1)
			r.line("superseded", "b")
			r.issue("c")
		}, Report{}, "certificate b as revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &tables{memory: memory{events: map[uint64][][]byte{}}}
			c.happens(r)
			report, err := Verify(t.Context(), r, OneKey(testKey.Public()), r, nil)
			if c.fault != "" {
				if f, ok := errors.AsType[*Fault](err); !ok || !strings.Contains(f.Error(), c.fault) {
					t.Errorf("got %v, want %q", err, c.fault)
				}
				return
			}
			got := Report{Certificates: report.Certificates, Revocations: report.Revocations, Unnamed: report.Unnamed, Unchecked: report.Unchecked}
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

// dropped drops the events of the first entries, signed.
func (r *tables) dropped(upTo uint64) {
	c, err := SignDropped(testKey, "audit", r.entries[upTo-1], noon)
	if err != nil {
		panic(err)
	}
	for s := range upTo {
		delete(r.events, s+1)
	}
	r.checkpoints = append(r.checkpoints, c)
}
