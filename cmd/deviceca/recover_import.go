package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/pack"
)

// recovery enters what happened after a snapshot. Everything that it enters takes trust away, so
// that events, which nothing signs, can do no worse than refuse too much.
type recovery struct {
	*system
	actor    string
	dry      bool
	notAfter time.Time
	instance store.Instance
	report   admin.RecoveryReport
	seen     map[ca.Serial]bool // entered, or with dry counted as entered
	indexes  map[place]bool     // of those
}

// place is an issuance index of a CA.
type place struct {
	issuer string
	index  uint64
}

// eventAcknowledged opens a restored home; its reason is the administrator's.
const eventAcknowledged ca.EventKind = "store.acknowledged"

// recover is admin.Options.Recover. Its steps:
//
//  1. Read and verify every file; a faulty one ends it before anything is entered.
//  2. Enter CRLs, then packs, which name certificates by their index alone, then logs.
//  3. Open the home, if the administrator acknowledges.
func (s *system) recover(ctx context.Context, in admin.Recovery, actor string) (admin.RecoveryReport, error) {
	r := &recovery{system: s, actor: actor, dry: in.DryRun, seen: map[ca.Serial]bool{}, indexes: map[place]bool{}}
	r.report.Counts, r.report.Entered, r.report.Passed = map[string]int{}, []string{}, []string{}
	if in.NotAfter != nil {
		r.notAfter = *in.NotAfter
	}
	var err error
	if r.instance, err = s.store.Instance(ctx); err != nil {
		return r.report, err
	}
	if !r.instance.Restored() {
		return r.report, ca.Errorf(ca.Conflict, "this CA was not restored from a backup: there is nothing to recover")
	}
	r.report.Snapshot, r.report.Instance = r.instance.Snapshot, r.instance.ID
	if in.Acknowledge != "" && r.instance.Opened != nil {
		return r.report, ca.Errorf(ca.Conflict, "this CA is open: nothing waits to be acknowledged")
	}
	lists, err := r.readLists(in.CRLs)
	if err != nil {
		return r.report, err
	}
	packs, err := r.readPacks(in.Packs)
	if err != nil {
		return r.report, err
	}
	events, err := r.readEvents(in.Logs)
	if err != nil {
		return r.report, err
	}
	for _, l := range lists {
		if err := r.enterList(ctx, l); err != nil {
			return r.report, err
		}
	}
	for _, p := range packs {
		if err := r.enterPack(ctx, p); err != nil {
			return r.report, err
		}
	}
	if err := r.enterEvents(ctx, events); err != nil {
		return r.report, err
	}
	if in.Acknowledge != "" {
		e := ca.Event{Time: time.Now(), Kind: eventAcknowledged, Actor: actor, Reason: in.Acknowledge}
		if err := s.store.Open(ctx, e); err != nil {
			return r.report, err
		}
		s.log.Info("the restored CA is open", "actor", actor, "reason", in.Acknowledge)
	}
	r.report.Closed, _, err = s.store.Closed(ctx)
	return r.report, err
}

func (r *recovery) entered(kind, format string, args ...any) {
	r.report.Counts[jsonName(kind)]++
	if len(r.report.Entered) < maxLines {
		r.report.Entered = append(r.report.Entered, fmt.Sprintf(format, args...))
	}
}

func (r *recovery) pass(format string, args ...any) {
	if len(r.report.Passed) < maxLines {
		r.report.Passed = append(r.report.Passed, fmt.Sprintf(format, args...))
	}
}

// maxLines bounds a report; its counts are whole.
const maxLines = 10_000

// --- CRLs

type signedList struct {
	*crl.List
	file   string
	issuer ca.IssuerRecord
}

func (r *recovery) readLists(files []string) (all []signedList, err error) {
	for _, file := range files {
		l, err := r.readList(file)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// readList reads a CRL and finds the CA of ours that signed it. It may have expired.
func (r *recovery) readList(file string) (l signedList, err error) {
	l.file = file
	if l.List, err = readCRLFile(file); err != nil {
		return l, ca.Errorf(ca.Malformed, "%w", err)
	}
	var refusal error
	for _, record := range r.service.Issuers() {
		cert, err := x509.ParseCertificate(record.Cert)
		if err != nil {
			return l, err
		}
		if record.Role == "cross" {
			continue
		}
		err = l.Verify(cert, l.ThisUpdate)
		if err == nil {
			l.issuer = record
			return l, nil
		}
		if refusal == nil || string(cert.RawSubject) == string(l.Issuer) {
			refusal = err
		}
	}
	return l, ca.Errorf(ca.Malformed, "%s is no CRL of this CA: %w", file, refusal)
}

func readCRLFile(file string) (*crl.List, error) {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", file)
	}
	return readCRL(context.Background(), file)
}

// older reports, in the passed lines, that a publication was made before the snapshot: it says nothing new, and a hold in it
// may have been released. What is published begins before it was made: what may be of before or after counts as after.
func (r *recovery) older(file, role string, thisUpdate time.Time) bool {
	backdate := r.service.Policy().Backdate()
	if role == "root" {
		backdate = ca.BackdateCA
	}
	if at := thisUpdate.Add(backdate); at.Before(r.instance.Snapshot.Truncate(time.Second)) {
		r.pass("%s was made by %s, before the backup: it says nothing new", file, instant(at))
		return true
	}
	return false
}

func (r *recovery) enterList(ctx context.Context, l signedList) error {
	if l.Number != nil && l.Number.IsInt64() && !r.dry {
		if err := r.store.RaiseCounter(ctx, "crl", l.issuer.Name, l.Number.Int64()); err != nil {
			return err
		}
	}
	if r.older(l.file, l.issuer.Role, l.ThisUpdate) {
		return nil
	}
	if l.issuer.IsRoot() {
		return r.enterRootList(ctx, l)
	}
	why := fmt.Sprintf("CRL number %s of %s", numberText(l.Number), l.issuer.Name)
	for line, err := range l.Lines() {
		if err != nil {
			return ca.Errorf(ca.Malformed, "%s: %w", l.file, err)
		}
		serial, ours := ca.SerialFromBig(line.Serial)
		switch {
		case !ours:
			r.pass("%s lists serial %x, which is none of this CA's form", l.file, line.Serial)
			continue
		case line.Reason == crl.RemoveFromCRL:
			r.pass("%s was released from hold at %s, says %s: if it still is on hold here, use cert release", serial, instant(line.Revoked), why)
			continue
		}
		rev := ca.Revocation{Time: line.Revoked, Reason: line.Reason}
		if !line.Invalid.IsZero() {
			rev.Invalid = &line.Invalid
		}
		if err := r.revoke(ctx, serial, l.issuer.Name, rev, why); err != nil {
			return err
		}
	}
	return nil
}

// enterRootList enters CAs that a root revoked, and keeps the list to be published.
func (r *recovery) enterRootList(ctx context.Context, l signedList) error {
	for line, err := range l.Lines() {
		if err != nil {
			return ca.Errorf(ca.Malformed, "%s: %w", l.file, err)
		}
		for _, record := range r.service.Issuers() {
			cert, err := x509.ParseCertificate(record.Cert)
			if err != nil {
				return err
			}
			if record.Revoked != nil || cert.SerialNumber.Cmp(line.Serial) != 0 || string(cert.RawIssuer) != string(l.Issuer) {
				continue
			}
			if !r.dry {
				if err := r.service.RevokeCA(ctx, record.Name, line.Reason, r.actor); err != nil {
					r.pass("CA %s is revoked, says %s, and cannot be here: %s", record.Name, l.file, err)
					continue
				}
			}
			r.entered("revoked CAs", "CA %s: %s", record.Name, ca.ReasonName(line.Reason))
		}
	}
	if r.dry {
		return nil
	}
	return r.store.PutSetting(ctx, crlSetting(l.issuer.Name), l.Raw,
		ca.Event{Time: time.Now(), Kind: ca.EventRootCRL, Actor: r.actor, Issuer: l.issuer.Name, Reason: "number " + numberText(l.Number) + ", recovered"})
}

// revokedLost counts revocations of certificates that were issued since the snapshot.
const revokedLost = "revocations of certificates not in the ledger"

// revoke enters one revocation, whether the ledger holds the certificate or not.
func (r *recovery) revoke(ctx context.Context, serial ca.Serial, issuer string, rev ca.Revocation, why string) error {
	c, err := r.store.CertificateBySerial(ctx, serial)
	lost := errors.Is(err, ca.ErrNoRecord)
	if err != nil && !lost {
		return err
	}
	if r.seen[serial] || !lost && c.Revocation != nil && (c.Revocation.Reason != ca.ReasonCertificateHold || rev.Reason == ca.ReasonCertificateHold) {
		return nil
	}
	if !lost && c.Issuer != issuer {
		r.pass("%s is a certificate of %s here, and of %s in the %s", serial, c.Issuer, issuer, why)
		return nil
	}
	r.indexes[place{issuer, serial.Index()}] = true
	r.seen[serial] = r.dry || rev.Reason != ca.ReasonCertificateHold
	e := ca.Event{Time: time.Now(), Kind: ca.EventRevoked, Actor: r.actor, Issuer: issuer, Serial: serial,
		Reason: fmt.Sprintf("%s at %s, recovered from %s", ca.ReasonName(rev.Reason), instant(rev.Time), why)}
	kind, name := "revocations", ""
	switch {
	case lost && r.dry:
		kind, name, err = revokedLost, "not in the ledger", nil
	case lost:
		kind, name = revokedLost, "not in the ledger"
		_, err = r.service.EnterLost(ctx, serial, ca.Lost{Issuer: issuer, NotAfter: r.notAfter}, rev, e)
		if ca.KindOf(err) == ca.Malformed && err != nil {
			r.pass("%s", ca.AsError(err).Reason)
			return nil
		}
	case r.dry:
		name = c.Device
	default:
		name, e.Device = c.Device, c.Device
		if _, err = r.store.Revoke(ctx, []ca.Serial{serial}, rev, e); err == nil && !c.NoStatus {
			r.revocation.changed(ctx, issuer, []ca.Serial{serial})
		}
	}
	if err == nil {
		r.entered(kind, "%s (%s): %s at %s, says the %s", serial, name, ca.ReasonName(rev.Reason), instant(rev.Time), why)
	}
	return err
}

// --- packs

type signedPack struct {
	*pack.Pack
	files  []string
	issuer ca.IssuerRecord
}

// packLimits are for packs of our own.
var packLimits = pack.Limits{Bytes: 1 << 30, Revoked: 1 << 30}

// readPacks verifies full packs, and applies the deltas among the files where they fit.
func (r *recovery) readPacks(files []string) (all []signedPack, err error) {
	deltas := map[string][]byte{}
	for _, file := range files {
		raw, err := readSource(context.Background(), file)
		if err != nil {
			return nil, ca.Errorf(ca.Malformed, "%w", err)
		}
		parts, err := pack.Split(raw)
		if err != nil {
			parts = [][]byte{raw} // which is refused below, with the reason
		}
		for n, part := range parts {
			name := file
			if len(parts) > 1 {
				name = fmt.Sprintf("%s, pack %d", file, n+1)
			}
			p, err := r.openPack(part)
			if err != nil {
				deltas[name] = part
				continue
			}
			p.files = []string{name}
			all = append(all, p)
		}
	}
	for again := true; again; {
		again = false
		for file, raw := range deltas {
			for i := range all {
				if next, err := all[i].Apply(raw); err == nil {
					all[i].Pack, all[i].files, again = next, append(all[i].files, file), true
					delete(deltas, file)
					break
				}
			}
		}
	}
	for file, raw := range deltas {
		_, err := r.openPack(raw)
		return nil, ca.Errorf(ca.Malformed, "%s is neither a pack of this CA nor a delta that follows one given: %w", file, err)
	}
	return all, nil
}

func (r *recovery) openPack(raw []byte) (p signedPack, err error) {
	for _, record := range r.service.Issuers() {
		if !record.Subordinate() {
			continue
		}
		cert, parseErr := x509.ParseCertificate(record.Cert)
		if parseErr != nil {
			return p, parseErr
		}
		if p.Pack, err = pack.Verify(raw, pack.Options{Issuer: cert, Limits: packLimits}); err == nil {
			p.issuer = record
			return p, nil
		}
	}
	return p, err
}

func (r *recovery) enterPack(ctx context.Context, p signedPack) error {
	h := p.Header()
	if h.Sequence < 1<<63-1 && !r.dry {
		if err := r.store.RaiseCounter(ctx, "pack", p.issuer.Name, int64(h.Sequence)); err != nil {
			return err
		}
	}
	if r.older(strings.Join(p.files, ", "), p.issuer.Role, h.ThisUpdate) {
		return nil
	}
	why := fmt.Sprintf("pack %d of %s", h.Sequence, p.issuer.Name)
	for index := range p.All() {
		serial, err := r.store.CertificateAtIndex(ctx, p.issuer.Name, index)
		if errors.Is(err, ca.ErrNoRecord) {
			if serial, err = ca.IndexOnly(index), nil; r.indexes[place{p.issuer.Name, index}] {
				continue // a CRL gave the whole serial, in a dry run
			}
		}
		if err == nil {
			// When and why, a pack does not say.
			err = r.revoke(ctx, serial, p.issuer.Name, ca.Revocation{Time: h.ThisUpdate, Reason: ca.ReasonUnspecified}, why)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// --- logs

// loggedEvent is an event as webhooks and audit export write it.
type loggedEvent struct {
	ID int64 `json:"id"`
	ca.Event
}

// readEvents reads events from a stream of JSON values: single ones, arrays, and bodies of posts.
func (r *recovery) readEvents(files []string) (all []loggedEvent, err error) {
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, ca.Errorf(ca.Malformed, "%w", err)
		}
		events, err := decodeEvents(f)
		f.Close()
		if err != nil {
			return nil, ca.Errorf(ca.Malformed, "%s: event %d: %w", file, len(events)+1, err)
		}
		all = append(all, events...)
	}
	all = slices.DeleteFunc(all, func(e loggedEvent) bool {
		return e.ID != 0 && e.ID <= r.instance.KnownEvent || e.ID == 0 && e.Time.Before(r.instance.Snapshot)
	})
	slices.SortStableFunc(all, func(a, b loggedEvent) int { return a.Time.Compare(b.Time) })
	return all, nil
}

func decodeEvents(in io.Reader) (all []loggedEvent, err error) {
	dec := json.NewDecoder(in)
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err == io.EOF {
			return all, nil
		} else if err != nil {
			return all, err
		}
		var many []loggedEvent
		if raw[0] == '[' {
			err = json.Unmarshal(raw, &many)
		} else {
			var post struct {
				Events []loggedEvent `json:"events"`
				loggedEvent
			}
			err = json.Unmarshal(raw, &post)
			if many = post.Events; many == nil {
				many = []loggedEvent{post.loggedEvent}
			}
		}
		if err != nil {
			return all, err
		}
		for _, e := range many {
			if e.Kind == "" || e.Time.IsZero() {
				return all, errors.New("is no event: kind and time are missing")
			}
		}
		all = append(all, many...)
	}
}

func (r *recovery) enterEvents(ctx context.Context, events []loggedEvent) error {
	moved := map[string]loggedEvent{} // the last of each device
	for _, e := range events {
		var err error
		switch e.Kind {
		case ca.EventIssued:
			err = r.issued(ctx, e)
		case ca.EventRevoked:
			err = r.revoked(ctx, e)
		case ca.EventReleased:
			r.pass("certificate %s was released from hold at %s: if it still is on hold here, use cert release", e.Serial, instant(e.Time))
		case ca.EventDeviceMoved:
			moved[device.Fold(e.Device)] = e
		case ca.EventAccountAdded:
			err = r.accountAdded(ctx, e)
		default:
			err = r.ended(ctx, e)
		}
		if err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(moved)) {
		if err := r.moved(ctx, moved[id]); err != nil {
			return err
		}
	}
	return nil
}

// issued notes a certificate that the ledger does not hold, and the use that it cost.
func (r *recovery) issued(ctx context.Context, e loggedEvent) error {
	if e.Serial.IsZero() {
		return nil
	}
	c, err := r.store.CertificateBySerial(ctx, e.Serial)
	if err != nil && !errors.Is(err, ca.ErrNoRecord) || err == nil && c.Profile != ca.ProfileLost {
		return err
	}
	credential, _ := strings.CutPrefix(e.Actor, "credential:")
	if e.Actor == credential || e.Protocol == "acme" { // an order spends nothing: its account did
		credential = ""
	}
	return r.note(ctx, e.Serial[:], e, credential, "certificates issued since the backup, not in the ledger",
		fmt.Sprintf("certificate %s of %s, issued by %s", e.Serial, e.Device, e.Issuer))
}

func (r *recovery) accountAdded(ctx context.Context, e loggedEvent) error {
	credential, bound := strings.CutPrefix(e.Actor, "credential:")
	if !bound {
		return nil
	}
	return r.note(ctx, fmt.Appendf(nil, "account %d %d", e.ID, e.Time.UnixMicro()), e, credential, "ACME accounts made since the backup, not in the ledger", "ACME account of credential "+credential)
}

func (r *recovery) note(ctx context.Context, key []byte, e loggedEvent, credential, kind, line string) error {
	fresh := true
	if !r.dry {
		var err error
		if fresh, err = r.store.NoteLost(ctx, key, e.Issuer, e.Device, credential, e.Time); err != nil {
			return err
		}
	}
	if fresh {
		r.entered(kind, "%s", line)
	}
	return nil
}

func (r *recovery) revoked(ctx context.Context, e loggedEvent) error {
	if e.Serial.IsZero() {
		r.pass("%s of device %s were revoked at %s: give the CRL, or use cert revoke", e.Reason, e.Device, instant(e.Time))
		return nil
	}
	name, _, _ := strings.Cut(e.Reason, ",")
	reason, err := ca.ParseReason(name)
	if err != nil {
		reason = ca.ReasonUnspecified
	}
	rev := ca.Revocation{Time: e.Time, Reason: reason}
	if said, err := ca.ParseRevocation(e.Revocation); err == nil { // earlier versions did not say it
		rev = said
	}
	return r.revoke(ctx, e.Serial, e.Issuer, rev, "log")
}

// moved enters the state that a device was left in, if that takes something away.
func (r *recovery) moved(ctx context.Context, e loggedEvent) error {
	_, name, found := strings.Cut(e.Reason, " to ")
	to := device.State(name)
	if !found || to != device.Suspended && to != device.Retired {
		return nil
	}
	d, err := r.store.Device(ctx, e.Device)
	if errors.Is(err, ca.ErrNoRecord) {
		return nil // unknown devices enrol with nothing
	}
	if err != nil || d.State == to {
		return err
	}
	if err := device.CheckMove(d.State, to); err != nil {
		r.pass("device %s became %s at %s: %s", d.ID, to, instant(e.Time), err)
		return nil
	}
	if !r.dry {
		if _, err := r.service.MoveDevice(ctx, d.ID, to, ca.ReasonCessationOfOperation, r.actor); err != nil {
			return err
		}
	}
	r.entered("devices "+string(to), "device %s: %s", d.ID, to)
	return nil
}

// added names what was added since the backup. Recover only takes away, so an administrator adds it again.
func (r *recovery) added(ctx context.Context, e loggedEvent) error {
	what := e.Reason
	switch e.Kind {
	case ca.EventDeviceAdded:
		if e.Device == "" { // several at once: the reason says how many
			break
		}
		if _, err := r.store.Device(ctx, e.Device); !errors.Is(err, ca.ErrNoRecord) {
			return err
		}
		what = "device " + e.Device + ", " + e.Reason
	case ca.EventCredentialAdded:
		what = "credential " + e.Reason
		if e.Device != "" {
			what = "credential of " + e.Device + ": " + e.Reason
		}
	case ca.EventAdminAdded:
		what = "administrator " + e.Reason
	case ca.EventRAAdded:
		what = "registration authority " + e.Reason
	case ca.EventManufacturerAdded:
		what = "manufacturer " + e.Reason
	case ca.EventIssuerAdded:
		what = "CA " + e.Issuer
	case ca.EventPolicyApplied:
		what = "policy " + e.Policy
	}
	r.report.Counts[jsonName("additions since the backup, to be made again by hand")]++
	r.pass("%s was added at %s: add it again by hand", what, instant(e.Time))
	return nil
}

// ended enters the end of a credential, an account, an administrator, or of who vouches.
func (r *recovery) ended(ctx context.Context, e loggedEvent) error {
	var kind, what string
	var end func() error
	switch e.Kind {
	case ca.EventCredentialRevoked:
		kind, what = "credentials revoked", "credential "+e.Reason
		if c, err := r.store.Credential(ctx, e.Reason); errors.Is(err, ca.ErrNoRecord) || err == nil && c.Revoked != nil {
			return nil
		}
		end = func() error { return r.service.RevokeCredential(ctx, e.Reason, r.actor) }
	case ca.EventAccountEnded:
		kind, what = "accounts deactivated", fmt.Sprintf("account %d", e.Account)
		if a, err := r.store.Account(ctx, e.Account); errors.Is(err, ca.ErrNoRecord) || err == nil && a.Status != "valid" {
			return nil
		}
		end = func() error { return r.service.DeactivateAccount(ctx, e.Account, r.actor) }
	case ca.EventAdminRemoved:
		kind, what = "administrators removed", "administrator "+e.Reason
		all, err := r.store.Admins(ctx)
		if err != nil || !slices.ContainsFunc(all, func(a ca.Admin) bool { return a.Name == e.Reason && a.Created.Before(e.Time) }) {
			return err
		}
		end = func() error {
			return r.store.RemoveAdmin(ctx, e.Reason, ca.Event{Time: time.Now(), Kind: ca.EventAdminRemoved, Actor: r.actor, Reason: e.Reason})
		}
	case ca.EventRARemoved:
		kind, what = "registration authorities removed", "registration authority "+e.Reason
		all, err := r.store.RAs(ctx)
		if err != nil || !slices.ContainsFunc(all, func(ra ca.RA) bool { return ra.Name == e.Reason && ra.Removed == nil && ra.Created.Before(e.Time) }) {
			return err
		}
		end = func() error { return r.service.RemoveRA(ctx, e.Reason, r.actor) }
	case ca.EventManufacturerWithdrawn:
		name, format, _ := strings.Cut(e.Reason, " ")
		kind, what = "manufacturers withdrawn", "manufacturer "+e.Reason
		all, err := r.store.Manufacturers(ctx)
		if err != nil || !slices.ContainsFunc(all, func(m ca.Manufacturer) bool {
			return m.Name == name && (format == "" || m.Format == format) && m.Withdrawn == nil && m.Created.Before(e.Time)
		}) {
			return err
		}
		end = func() error { return r.service.WithdrawManufacturer(ctx, name, format, r.actor) }
	case ca.EventIssuerRevoked:
		r.pass("CA %s was revoked at %s (%s): give the root's CRL, or use ca revoke", e.Issuer, instant(e.Time), e.Reason)
		return nil
	case ca.EventDeviceChanged:
		r.pass("device %s was changed at %s (%s): if it is not so here, use device set", e.Device, instant(e.Time), e.Reason)
		return nil
	case ca.EventDeviceRemoved:
		r.pass("device %s was removed at %s: if it is here, use device remove", e.Device, instant(e.Time))
		return nil
	case ca.EventPolicyApplied, ca.EventIssuerAdded, ca.EventAdminAdded, ca.EventRAAdded, ca.EventManufacturerAdded, ca.EventCredentialAdded, ca.EventDeviceAdded:
		return r.added(ctx, e)
	default:
		return nil
	}
	if !r.dry {
		if err := end(); err != nil {
			return err
		}
	}
	r.entered(kind, "%s", what)
	return nil
}
