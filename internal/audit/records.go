package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// Records are the tables that the events speak of. Certificates and the lines of
// the revocation journal are in the order of the events that made them.
type Records interface {
	// Certificates yields the certificates up to a number, in order.
	Certificates(ctx context.Context, upTo int64) iter.Seq2[Certificate, error]
	// Certificate finds one by its serial number, hex; false if there is none.
	Certificate(ctx context.Context, serial string) (Certificate, bool, error)
	// Lines yields the lines of the revocation journal up to a number, in order. A
	// hold's is gone when it was released, or gave way to a revocation.
	Lines(ctx context.Context, upTo int64) iter.Seq2[Line, error]
	// Line finds the newest line of a certificate; false if there is none.
	Line(ctx context.Context, serial string) (Line, bool, error)
	// Issuers are the CAs, which are few.
	Issuers(ctx context.Context) ([]Issuer, error)
}

// Issuer is a CA's record.
type Issuer struct {
	Name    string
	Digest  string // SHA-256 of its certificate, hex
	Created time.Time
	Revoked time.Time // zero if it was not
	Reason  string    // by name
}

// Certificate is a certificate's record.
type Certificate struct {
	Number int64
	Serial string // hex
	Issuer string
	Device string
	Issued time.Time
	Digest string // SHA-256 of the certificate, hex; "" if the ledger does not have it
	Fault  string // what in the record does not agree with the certificate; "" if all does
}

// Line is a line of the revocation journal.
type Line struct {
	Number   int64
	Serial   string // hex
	Device   string
	Released bool   // from hold; else it is a revocation
	Reason   string // by name
	Time     time.Time
	Text     string // all that it says of the certificate, as an event's "revocation" does
	Fault    string // what in the line does not agree with the certificate's record; "" if all does
}

// The events that are compared, and the reason of a hold.
const (
	kindIssued   = "certificate.issued"
	kindRevoked  = "certificate.revoked"
	kindReleased = "certificate.released"
	kindMoved    = "device.moved"

	kindIssuerAdded   = "ca.added"
	kindIssuerRevoked = "ca.revoked"

	reasonHold = "certificateHold"
)

// said is what is compared of an event.
type said struct {
	Time                         time.Time
	Kind, Device, Issuer, Serial string
	Digest, Reason, Revocation   string
}

// hold reports whether a revocation is one that ends.
func (e said) hold() bool {
	if e.Revocation == "" { // of before that was recorded
		return e.Reason == reasonHold
	}
	return strings.HasPrefix(e.Revocation, reasonHold+" ")
}

// same reports whether a line says what an event does.
func (e said) same(l Line) bool {
	switch {
	case l.Serial != e.Serial:
		return false
	case e.Revocation != "":
		return l.Text == e.Revocation
	case e.Kind == kindReleased:
		return l.Released && l.Time.Equal(micros(e.Time))
	}
	return !l.Released && l.Reason == e.Reason && l.Time.Equal(micros(e.Time))
}

// comparison walks certificates and lines beside the events.
type comparison struct {
	ctx     context.Context
	records Records
	extent  Extent
	report  *Report

	certificates walk[Certificate]
	loose        map[string]Certificate // passed over: their event must come yet
	lines        walk[Line]
	holds        map[string]said   // whose line is gone: what ended them must come yet
	retired      map[retired]bool  // whose lines need no event
	issuers      map[string]Issuer // as the events say
	unknownUntil time.Time         // events up to then were dropped
	until        time.Time         // of the newest entry
}

// retired is a device's retirement from before each certificate of it had its own event. Its lines
// may come much later: a retirement goes on in pages.
type retired struct {
	device string // in lower case
	at     time.Time
}

// maxLoose is how many records may lack their event before the first of them is called a fault.
const maxLoose = 10_000

func newComparison(ctx context.Context, records Records, extent Extent, report *Report) *comparison {
	return &comparison{ctx: ctx, records: records, extent: extent, report: report, loose: map[string]Certificate{}, holds: map[string]said{}, retired: map[retired]bool{}, issuers: map[string]Issuer{},
		certificates: newWalk(records.Certificates(ctx, extent.Certificate)), lines: newWalk(records.Lines(ctx, extent.Line))}
}

func (c *comparison) stop() {
	c.certificates.stop()
	c.lines.stop()
}

// disagree is a fault of the tables, not of the log.
func disagree(format string, args ...any) error {
	return fault(0, "the ledger does not agree with the audit log: "+format, args...)
}

// events compares those of an entry.
func (c *comparison) events(l Logged) error {
	c.until = l.Time
	for _, raw := range l.Events {
		var e said
		if err := json.Unmarshal(raw.Body, &e); err != nil {
			return fault(l.Sequence, "an event cannot be read: %v", err)
		}
		if raw.Kind != e.Kind || raw.Device != strings.ToLower(e.Device) {
			return fault(l.Sequence, "an event of kind %s about device %q is found as one of kind %s about %q", e.Kind, e.Device, raw.Kind, raw.Device)
		}
		if err := c.event(e); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) event(e said) error {
	switch {
	case e.Kind == kindIssued && e.Serial != "":
		return c.issued(e)
	case e.Kind == kindRevoked && e.Serial != "":
		return c.revoked(e)
	case e.Kind == kindRevoked:
		var most uint64
		var reason string
		if n, err := fmt.Sscanf(e.Reason, "%d certificates: %s", &most, &reason); n != 2 || err != nil {
			return nil // of no certificate
		}
		return c.unnamed(e, most, reason)
	case e.Kind == kindReleased && e.Serial != "":
		return c.released(e)
	case e.Kind == kindIssuerAdded:
		c.issuers[e.Issuer] = Issuer{Name: e.Issuer, Digest: e.Digest}
	case e.Kind == kindIssuerRevoked:
		i := c.issuers[e.Issuer]
		i.Name, i.Revoked, i.Reason = e.Issuer, micros(e.Time), e.Reason
		c.issuers[e.Issuer] = i
	case e.Kind == kindMoved && strings.HasSuffix(e.Reason, " to retired") && e.Revocation == "":
		c.retired[retired{strings.ToLower(e.Device), micros(e.Time).UTC()}] = true
	}
	return nil
}

func (c *comparison) issued(e said) error {
	record, have, err := c.certificates.current()
	if err != nil {
		return err
	}
	if !have || record.Serial != e.Serial {
		if record, err = c.find(e); err != nil || record.Serial == "" {
			return err
		}
	} else {
		c.certificates.advance()
	}
	switch {
	case e.Digest != "" && e.Digest != record.Digest:
		return disagree("certificate %s of device %q is another one than was issued: its SHA-256 is %s, not %s", e.Serial, e.Device, record.Digest, e.Digest)
	case record.Fault != "":
		return disagree("the record of certificate %s is not of that certificate: %s", e.Serial, record.Fault)
	case e.Issuer != record.Issuer || !strings.EqualFold(e.Device, record.Device):
		return disagree("certificate %s was issued by %s to device %q, and the ledger says by %s to %q", e.Serial, e.Issuer, e.Device, record.Issuer, record.Device)
	}
	c.report.Certificates++
	return nil
}

// find is for a certificate that is not the next one in its order. It gives none if the
// record was counted as unchecked already.
func (c *comparison) find(e said) (Certificate, error) {
	if record, ok := c.loose[e.Serial]; ok {
		delete(c.loose, e.Serial)
		return record, nil
	}
	record, found, err := c.records.Certificate(c.ctx, e.Serial)
	if err != nil {
		return record, err
	}
	if !found {
		return record, disagree("certificate %s was issued to device %q at %s, and there is no record of it", e.Serial, e.Device, e.Time.Format(time.RFC3339))
	}
	for {
		next, have, err := c.certificates.current()
		switch {
		case err != nil:
			return record, err
		case !have || next.Number > record.Number:
			if c.unchecked(record.Issued) {
				return Certificate{}, nil
			}
			return record, disagree("certificate %s was issued twice, says the log", e.Serial)
		}
		c.certificates.advance()
		if next.Number == record.Number {
			return next, nil
		}
		if err := c.passOver(next); err != nil {
			return record, err
		}
	}
}

// passOver keeps a record whose event did not come in its order.
func (c *comparison) passOver(record Certificate) error {
	if c.unchecked(record.Issued) {
		c.report.Unchecked++
		return nil
	}
	c.loose[record.Serial] = record
	if len(c.loose) > maxLoose {
		return c.looseFault()
	}
	return nil
}

// unchecked reports whether the event of what happened then may have been dropped.
func (c *comparison) unchecked(at time.Time) bool { return !at.After(c.unknownUntil) }

func (c *comparison) looseFault() error {
	first := slices.MinFunc(slices.Collect(maps.Values(c.loose)), func(a, b Certificate) int { return int(a.Number - b.Number) })
	return disagree("certificate %s of device %q is in the ledger, and the log does not know of its issuance", first.Serial, first.Device)
}

func (c *comparison) revoked(e said) error {
	if err := c.entered(e); err != nil {
		return err
	}
	ok, err := c.line(e.same)
	if err != nil {
		return err
	}
	switch {
	case ok:
		delete(c.holds, e.Serial)
		return nil
	case e.hold():
		c.holds[e.Serial] = e
		return nil
	}
	return c.missing(e)
}

// entered takes the record of a certificate that no event before told of: one
// that was issued after the copy from which the ledger was restored was made, and entered to be revoked.
func (c *comparison) entered(e said) error {
	record, have, err := c.certificates.current()
	if err != nil {
		return err
	}
	if have && record.Serial == e.Serial {
		c.certificates.advance()
	} else if record, have = c.loose[e.Serial]; have {
		delete(c.loose, e.Serial)
	}
	if !have || record.Serial != e.Serial {
		return nil
	}
	if e.Digest != "" && e.Digest != record.Digest || record.Fault != "" {
		return disagree("certificate %s is another one than was entered to be revoked", e.Serial)
	}
	c.report.Certificates++
	return nil
}

func (c *comparison) released(e said) error {
	ok, err := c.line(e.same)
	if err != nil {
		return err
	}
	if !ok {
		return c.missing(e)
	}
	delete(c.holds, e.Serial)
	return nil
}

// unnamed takes the lines of an event of before each certificate had its own.
func (c *comparison) unnamed(e said, most uint64, reason string) error {
	for range most {
		line, have, err := c.lines.current()
		if err != nil {
			return err
		}
		if !have || line.Released || !line.Time.Equal(micros(e.Time)) || !strings.EqualFold(line.Device, e.Device) || line.Reason != reason {
			return nil
		}
		if _, err := c.line(func(l Line) bool { return l.Number == line.Number }); err != nil {
			return err
		}
		delete(c.holds, line.Serial)
		c.report.Unnamed++
	}
	return nil
}

// micros is the precision that times are kept in.
func micros(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()) }

// line takes the next line of the journal if it is the right one.
func (c *comparison) line(right func(Line) bool) (bool, error) {
	for {
		line, have, err := c.lines.current()
		if err != nil || !have {
			return false, err
		}
		if right(line) {
			if line.Fault != "" {
				return false, lineFault(line)
			}
			c.lines.advance()
			c.report.Revocations++
			return true, nil
		}
		if passed, err := c.pass(line); err != nil || !passed {
			return false, err
		}
	}
}

// pass goes over the next line if it needs no event of its own.
func (c *comparison) pass(line Line) (bool, error) {
	switch {
	case !line.Released && c.retired[retired{strings.ToLower(line.Device), line.Time.UTC()}]:
		if line.Fault != "" {
			return false, lineFault(line)
		}
		delete(c.holds, line.Serial)
		c.report.Revocations++
		c.report.Unnamed++
	case c.unchecked(line.Time):
		c.report.Unchecked++
	default:
		return false, nil
	}
	c.lines.advance()
	return true, nil
}

func lineFault(line Line) error {
	return disagree("the revocation of certificate %s is not of that certificate: %s", line.Serial, line.Fault)
}

// missing says what is wrong where the line of an event is not the next one.
func (c *comparison) missing(e said) error {
	line, found, err := c.records.Line(c.ctx, e.Serial)
	if err != nil {
		return err
	}
	happened := "revoked (" + e.Reason + ") at " + e.Time.UTC().Format(time.RFC3339)
	switch {
	case e.Revocation != "" && e.Kind == kindRevoked:
		reason, at, _ := strings.Cut(e.Revocation, " ")
		happened = "revoked (" + reason + ") at " + at
	case e.Kind == kindReleased:
		happened = "released from hold at " + e.Time.UTC().Format(time.RFC3339)
	}
	happened = fmt.Sprintf("certificate %s was %s, says the log", e.Serial, happened)
	if !found {
		return disagree("%s, and the ledger has it as good", happened)
	}
	if next, have, err := c.lines.current(); err == nil && have && next.Number < line.Number {
		return c.unknownLine(next)
	}
	return disagree("%s, and the ledger has %s", happened, line)
}

func (c *comparison) unknownLine(l Line) error {
	return disagree("the ledger has certificate %s as %s, and the log does not know of it", l.Serial, l)
}

// String says what a line says of its certificate.
func (l Line) String() string {
	if l.Released {
		return "released from hold at " + l.Time.UTC().Format(time.RFC3339)
	}
	_, at, _ := strings.Cut(l.Text, " ")
	return "revoked (" + l.Reason + ") at " + at
}

// end is when every event was seen: what is left has none.
func (c *comparison) end() error {
	for {
		record, have, err := c.certificates.current()
		if err != nil {
			return err
		}
		if !have {
			break
		}
		c.certificates.advance()
		if err := c.passOver(record); err != nil {
			return err
		}
	}
	if len(c.loose) > 0 {
		return c.looseFault()
	}
	for {
		line, have, err := c.lines.current()
		if err != nil {
			return err
		}
		if !have {
			break
		}
		passed, err := c.pass(line)
		if err == nil && !passed {
			err = c.unknownLine(line)
		}
		if err != nil {
			return err
		}
	}
	if err := c.endHolds(); err != nil {
		return err
	}
	return c.endIssuers()
}

// endHolds is about holds that have no line any more.
func (c *comparison) endHolds() error {
	for _, serial := range slices.Sorted(maps.Keys(c.holds)) {
		// What ended it may have come meanwhile.
		line, found, err := c.records.Line(c.ctx, serial)
		if err == nil && (!found || line.Number <= c.extent.Line) {
			err = c.missing(c.holds[serial])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// endIssuers compares the CAs, both ways.
func (c *comparison) endIssuers() error {
	all, err := c.records.Issuers(c.ctx)
	if err != nil {
		return err
	}
	for _, have := range all {
		said, known := c.issuers[have.Name]
		delete(c.issuers, have.Name)
		switch {
		case !known && (c.unchecked(have.Created) || have.Created.After(c.until)):
			continue
		case !known:
			return disagree("CA %s is in the ledger, and the log does not know of it", have.Name)
		case said.Digest != "" && said.Digest != have.Digest:
			return disagree("the certificate of CA %s is another one than was entered: its SHA-256 is %s, not %s", have.Name, have.Digest, said.Digest)
		case have.Revoked.Equal(said.Revoked) && have.Reason == said.Reason || have.Revoked.After(c.until) || !have.Revoked.IsZero() && c.unchecked(have.Revoked):
			continue
		}
		return disagree("CA %s is %s, and the log says %s", have.Name, have, said)
	}
	for _, name := range slices.Sorted(maps.Keys(c.issuers)) {
		return disagree("CA %s was entered, says the log, and there is no record of it", name)
	}
	return nil
}

// String says what an issuer's record says of its revocation.
func (i Issuer) String() string {
	if i.Revoked.IsZero() {
		return "not revoked"
	}
	return fmt.Sprintf("revoked (%s) at %s", i.Reason, i.Revoked.UTC().Format(time.RFC3339))
}

// walk is a sequence that is looked at one by one.
type walk[T any] struct {
	next func() (T, error, bool)
	stop func()
	v    T
	err  error
	have bool
}

func newWalk[T any](all iter.Seq2[T, error]) walk[T] {
	var w walk[T]
	w.next, w.stop = iter.Pull2(all)
	w.advance()
	return w
}

func (w *walk[T]) advance() { w.v, w.err, w.have = w.next() }

// current is the value that comes next; false if none does.
func (w *walk[T]) current() (T, bool, error) {
	if w.err != nil {
		return w.v, false, w.err
	}
	return w.v, w.have, nil
}
