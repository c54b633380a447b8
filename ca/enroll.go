package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	crand "crypto/rand"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// repeatWindow is how long a repeated request is answered with the certificate already
// issued, so that a lost reply strands nobody, and one that could not be kept makes no second.
const repeatWindow = time.Hour

// Enroll decides on a request, and issues. The steps stand in an order that
// matters: nothing is signed that policy did not grant, nothing is recorded
// that does not verify, and nothing leaves whose record is not durable.
//
// Errors are *Error, of kind Denied (with Rule), BadKey, Unauthenticated,
// Pending (with RetryAfter), RateLimited, Conflict, Unavailable or Internal; or
// ErrAnswered, if the request has a With.
func (s *Service) Enroll(ctx context.Context, r Request) (*Issued, error) {
	issued, err := s.enroll(ctx, r)
	// The world may have changed between our look at it and the record: look once
	// more, and answer from what is there now (the same request may just have
	// been answered on another connection).
	if errors.Is(err, ErrSpent) || errors.Is(err, ErrRecorded) || errors.Is(err, ErrUnapproved) {
		issued, err = s.enroll(ctx, r)
	}
	if errors.Is(err, ErrAnswered) {
		return nil, err // no refusal: the answer is there
	}
	if err != nil {
		return nil, s.refused(ctx, r, err)
	}
	return issued, nil
}

func (s *Service) enroll(ctx context.Context, r Request) (issued *Issued, err error) {
	if err := s.closed(ctx); err != nil {
		return nil, err
	}
	now, st := s.now(), s.current.Load()

	// 1. Which device is this for?
	key := keyID(r.SPKI)
	deed, err := r.Deed()
	if err != nil {
		return nil, err
	}
	id, err := r.Requester.deviceOf(deed)
	if err != nil {
		return nil, err
	}

	// 2. What does the ledger know of that device and that key, and may the requester act for it?
	standing, err := s.ledger.Standing(ctx, id, key)
	if err != nil {
		return nil, err
	}
	dev, added, err := st.mayAct(&r.Requester, deed, id, standing.Device, now)
	if err != nil {
		return nil, err
	}
	if standing.KeyOwner != "" && !device.SameID(standing.KeyOwner, dev.ID) {
		return nil, Errorf(BadKey, "this key is known under another device: make a new key")
	}

	// 3. Was this very request answered already, and the reply perhaps lost?
	digest := r.digest()
	again, err := s.again(ctx, r, standing, digest, now)
	if err != nil {
		return nil, err
	}
	if again != nil {
		return s.handOutAgain(ctx, st, r, again)
	}

	// 4. Is the requester still good for one more? After step 3, since the reply
	// that was lost may have been to the last use.
	if err := mayHaveMore(r); err != nil {
		return nil, err
	}
	if err := r.checkPeriod(now); err != nil {
		return nil, err
	}

	// 5. What does policy say?
	algorithm, err := policy.KeyAlgorithm(r.PublicKey)
	if err != nil {
		return nil, Errorf(BadKey, "the key cannot be certified: %w", err)
	}
	in := s.input(st, r, dev, algorithm, now)
	decision := st.policy.Decide(in)
	if decision.Outcome == policy.Deny {
		s.revokeByRule(ctx, dev, decision, r)
		return nil, denied(decision)
	}

	profile := st.profiles[decision.Profile]
	if profile == nil {
		return nil, fmt.Errorf("policy %s grants profile %q, which was not compiled", decision.Version, decision.Profile)
	}
	if err := profile.suits(r); err != nil {
		return nil, err
	}

	// 6. Was this very renewal answered already? Only now, since a certificate is good for many requests, and what
	// has changed since the first counts. If not, is there a certificate left in the budgets of those
	// concerned? Policy has said for how long it would live, and with that how fast the device's budget fills.
	if again, err = s.renewed(ctx, r, profile, decision, standing.Newest, digest, now); err != nil {
		return nil, err
	}
	if again != nil {
		return s.handOutAgain(ctx, st, r, again)
	}
	settle, again, err := s.buy(ctx, r, dev, decision, standing.Newest, digest, now)
	if err != nil {
		return nil, err
	}
	if again != nil {
		return s.handOutAgain(ctx, st, r, again)
	}
	defer func() { settle(err) }()

	// 7. Must a person approve it, and has one? After policy, which is asked anew
	// each time: an approval overrides no rule.
	var approved *PendingRequest
	if profile.Approval {
		if approved, err = s.approval(ctx, r, in, decision, now); err != nil {
			return nil, err
		}
	}

	// 8. Put together what will be signed, and look at it once more.
	t, err := s.template(ctx, profile, decision, r, in.Device, now)
	if err != nil {
		return nil, err
	}
	der, err := s.sign(profile, t, now)
	if err != nil {
		return nil, err
	}

	// 9. Make it durable, together with its decision, its audit event, and the use of
	// the credential and of the approval.
	inputJSON, err := in.AppendJSON(nil)
	if err != nil {
		return nil, err
	}
	cert := &Certificate{
		Serial: t.serial, Issuer: profile.issuer.Record.Name, Device: dev.ID, KeyID: key,
		Profile: profile.Name, Level: decision.Level, Protocol: r.Protocol,
		Requester: string(r.Requester.Kind), Actor: r.Requester.Actor(),
		IssuedAt: now, NotBefore: t.notBefore, NotAfter: t.notAfter,
		Request: digest, Decision: decision, Input: inputJSON, DER: der,
		NoStatus: profile.Status.NoRevAvail,
	}
	issuance := &Issuance{Certificate: cert, Possession: r.Possession, Manufacturer: r.Requester.Manufacturer, RA: r.Requester.RA, Event: s.event(EventIssued, r, cert)}
	if added {
		issuance.NewDevice = dev
	}
	if r.Requester.Account == 0 {
		issuance.Newest, issuance.Once = standing.Newest, r.Requester.RA == nil
		if c := r.Requester.Credential; c != nil {
			issuance.Credential = c.Reference
		}
	}
	if cert.Replaces = r.Replaces; r.Requester.Certificate != nil {
		cert.Replaces = r.Requester.Certificate.Serial
	}
	if approved != nil {
		issuance.Pending, issuance.Event.Request = approved.ID, approved.ID
	}
	issued = s.handOut(st, cert, false)
	if r.With != nil {
		if issuance.With, err = r.With(issued); err != nil {
			return nil, err
		}
	}
	if err := s.ledger.Record(ctx, issuance); err != nil {
		return nil, recordError(err)
	}
	s.counts.issued.Add(1)
	s.revokeByRule(ctx, dev, decision, r, t.serial)

	// 10. Only now hand it out.
	return issued, nil
}

// Deed is what the request asks for, of the device that it names. Denied if it hands on the message of another.
func (r *Request) Deed() (Deed, error) {
	deed := Deed{Act: ActEnrol, Device: r.Names.CommonName(), Approvers: r.Approvers}
	if r.SPKI != nil && !r.ServerKey {
		deed.Key = keyID(r.SPKI)
	}
	for i := 0; deed.Device == "" && i < len(r.Names.SANs); i++ {
		if san := r.Names.SANs[i]; san.Form == "dns" || san.Form == "permanent-identifier" {
			deed.Device = san.Value
		}
	}
	if id := deed.Device; r.Forwarded != "" && r.Requester.Device == "" && id != "" && !device.SameID(id, r.Forwarded) {
		return deed, Errorf(Denied, "the request is for device %s, and what it hands on was sent by %s", id, r.Forwarded)
	}
	return deed, nil
}

// digest is what makes a repeated request the same: key, names, profile.
func (r *Request) digest() [32]byte {
	b := make([]byte, 0, 512)
	add := func(s string) { b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...) }
	add(string(r.SPKI))
	add(r.Profile)
	for _, a := range r.Names.Subject {
		add(a.Attr)
		add(a.Value)
	}
	add("") // no attribute is empty: here the names of the other kind begin
	for _, n := range r.Names.SANs {
		add(n.Form)
		add(n.Value)
	}
	return sha256.Sum256(b)
}

// again is the certificate that this credential's same request got within repeatWindow.
func (s *Service) again(ctx context.Context, r Request, standing Standing, digest [32]byte, now time.Time) (*Certificate, error) {
	if r.Requester.Credential == nil || r.Requester.Account != 0 || standing.Newest.IsZero() {
		return nil, nil // an account's order remembers its certificate itself
	}
	c, err := s.ledger.CertificateBySerial(ctx, standing.Newest)
	if err != nil || c.Actor != r.Requester.Actor() || c.Request != digest ||
		c.Revocation != nil || now.Sub(c.IssuedAt) >= repeatWindow || !now.Before(c.NotAfter) {
		return nil, err
	}
	return c, nil
}

// renewed is the certificate that the same request got within repeatWindow by the same certificate of the device, or by its
// IDevID. What a certificate is answered with is its own successor alone: a device that goes on with that
// renews anew, even with the same key. Nothing is handed out that would come out differently now.
func (s *Service) renewed(ctx context.Context, r Request, p *Profile, decision policy.Decision, newest Serial, digest [32]byte, now time.Time) (*Certificate, error) {
	shown := r.Requester.Certificate
	if shown == nil && r.Requester.Manufacturer == nil || shown != nil && newest == shown.Serial {
		return nil, nil
	}
	c, err := s.same(ctx, r, r.Requester.Device, decision, newest, digest, now)
	if c == nil || err != nil || c.Actor != r.Requester.Actor() || c.Issuer != p.issuer.Record.Name || c.Decision.Validity != decision.Validity ||
		shown != nil && c.Replaces != shown.Serial || shown == nil && !c.Replaces.IsZero() ||
		!r.NotAfter.IsZero() && c.NotAfter.After(r.NotAfter) || now.Sub(c.IssuedAt) >= repeatWindow {
		return nil, err
	}
	return c, nil
}

// mayHaveMore checks what authentication left open because only the request decides it.
func mayHaveMore(r Request) error {
	if c := r.Requester.Credential; c != nil && c.Spent() && r.Requester.Account == 0 {
		return Errorf(Unauthenticated, "this credential has no uses left; ask for a new one")
	}
	old := r.Requester.Certificate
	if old == nil || !r.Renew {
		return nil
	}
	was, err := certificateNames(r.Requester.leaf)
	if err != nil {
		return fmt.Errorf("certificate %s of ours: %w", old.Serial, err)
	}
	if !was.sameSubject(r.Names) {
		return Errorf(Denied, "re-enrolment keeps the subject of the certificate it renews: ask for the same one, or enrol anew")
	}
	if !was.sameSANs(r.Names) {
		return Errorf(Denied, "re-enrolment keeps the subjectAltName of the certificate it renews: ask for the same names, or enrol anew")
	}
	return nil
}

// checkPeriod refuses what no certificate can have. Within reason what is asked for is shortened, not refused:
// see Request.NotAfter.
func (r *Request) checkPeriod(now time.Time) error {
	text := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case !r.NotBefore.IsZero() && !r.NotAfter.IsZero() && !r.NotBefore.Before(r.NotAfter):
		return Errorf(Denied, "notAfter %s is not later than notBefore %s", text(r.NotAfter), text(r.NotBefore))
	case !r.NotAfter.IsZero() && !r.NotAfter.Truncate(time.Second).After(now):
		return Errorf(Denied, "notAfter %s has passed: ask for a time to come, or leave it out", text(r.NotAfter))
	case r.NotBefore.After(now):
		return Errorf(Denied, "notBefore %s is still to come, and certificates are valid from when they are issued: leave it out", text(r.NotBefore))
	}
	return nil
}

func (s *Service) input(st *state, r Request, d *device.Device, algorithm string, now time.Time) policy.Input {
	in := policy.Input{Now: now, Protocol: r.Protocol, Operation: "enroll", Requester: r.Requester.Kind, Profile: r.Profile,
		Device: policy.Device{ID: d.ID, Level: d.Level, Group: d.Group, State: string(d.State)},
		Key:    algorithm, Names: r.Names.List(), Evidence: r.Evidence, Verifiable: s.opts.Verifiable[r.Protocol]}
	if !r.Replaces.IsZero() {
		in.Operation = "renew"
	}
	if old := r.Requester.Certificate; old != nil {
		in.Operation = "renew"
		if level, ok := st.policy.Level(d.Level); ok && in.Profile == "" && slices.Contains(level.Profiles, old.Profile) {
			in.Profile = old.Profile // what it is, it stays, unless it asks for something else
		}
	}
	return in
}

// suits checks what a profile says of how a request came to be. It is the profile
// that will be issued, which a rule may have put in the place of the one asked for.
func (p *Profile) suits(r Request) error {
	switch {
	case r.ServerKey && !p.ServerKeygen.Allow:
		return &Error{Kind: Denied, Reason: "profile " + p.Name + " wants keys that the device made itself", Rule: "profiles." + p.Name + ".server_keygen"}
	case p.ChannelBinding && !r.Bound && r.Protocol == "est":
		return &Error{Kind: BadPOP, Reason: "profile " + p.Name + " wants requests that are bound to their TLS connection: put the channel binding into the challengePassword (RFC 7030 section 3.5)", Rule: "profiles." + p.Name + ".channel_binding"}
	}
	return nil
}

func denied(d policy.Decision) *Error {
	reason := "policy denies this"
	if len(d.Reasons) > 0 {
		reason = d.Reasons[0]
		for _, more := range d.Reasons[1:] {
			reason += "; " + more
		}
	}
	kind := Denied
	if strings.HasPrefix(d.Rule, "profiles.") && strings.HasSuffix(d.Rule, ".keys") {
		kind = BadKey // another key would do, and that is what the client needs to be told
	}
	return &Error{Kind: kind, Reason: reason, Rule: d.Rule}
}

// template decides the last of what varies: serial, dates, names.
func (s *Service) template(ctx context.Context, p *Profile, d policy.Decision, r Request, dev policy.Device, now time.Time) (template, error) {
	if err := p.issuer.ended(now); err != nil {
		return template{}, err
	}
	index, err := p.issuer.index.take(ctx, s.ledger, p.issuer.Record.Name)
	if err != nil {
		return template{}, err
	}
	var random [12]byte
	crand.Read(random[:])
	t := template{
		serial:    NewSerial(index, random),
		notBefore: now.Add(-p.Backdate).Truncate(time.Second),
		notAfter:  now.Add(d.Validity).Truncate(time.Second),
		names:     p.fill(r.Names, dev),
		spki:      r.SPKI,
	}
	t.names.SANs = distinct(t.names.SANs)
	if !r.NotBefore.IsZero() && !r.NotBefore.After(now) {
		t.notBefore = r.NotBefore.Truncate(time.Second)
	}
	if !r.NotAfter.IsZero() && r.NotAfter.Before(t.notAfter) {
		t.notAfter = r.NotAfter.Truncate(time.Second)
	}
	if end := p.issuer.Cert.NotAfter; end.Before(t.notAfter) {
		t.notAfter = end
		s.counts.shortened.Add(1)
	}
	return t, nil
}

// sign turns a template into a certificate that verifies.
func (s *Service) sign(p *Profile, t template, now time.Time) ([]byte, error) {
	if err := p.check(t, now); err != nil {
		return nil, fmt.Errorf("profile %s: refusing to sign: %w", p.Name, err)
	}
	tbs, err := p.tbs(t)
	if err != nil {
		return nil, fmt.Errorf("profile %s: %w", p.Name, err)
	}
	s.counts.signatures.Add(1)
	signature, err := p.issuer.sign(tbs)
	if err != nil {
		return nil, err
	}
	der := p.issuer.seal(tbs, signature)
	if !bytes.Contains(der[:min(len(der), len(tbs)+8)], tbs) {
		return nil, errors.New("the certificate does not hold what was signed")
	}
	s.watch(p, t, tbs)
	return der, nil
}

// handOutAgain hands out a certificate that was issued before.
func (s *Service) handOutAgain(ctx context.Context, st *state, r Request, c *Certificate) (*Issued, error) {
	if r.With == nil { // no confirmation will come over this protocol: to have it is to confirm it
		if err := s.ledger.Settle(ctx, c.Serial); err != nil {
			return nil, recordError(err)
		}
	}
	return s.handOut(st, c, true), nil
}

func (s *Service) handOut(st *state, c *Certificate, again bool) *Issued {
	var chain [][]byte
	if i := st.issuers[c.Issuer]; i != nil {
		chain = st.chain(i, s.now())
	}
	return &Issued{Certificate: c, Chain: chain, Outcome: c.Decision.Outcome, Reasons: c.Decision.Reasons, Again: again}
}

// recordError translates what the ledger found at the last moment.
func recordError(err error) error {
	switch {
	case errors.Is(err, ErrSpent):
		return Errorf(Unauthenticated, "%w; ask for a new one", err)
	case errors.Is(err, ErrKeyTaken):
		return Errorf(BadKey, "this key is known under another device: make a new key (%w)", err)
	case errors.Is(err, ErrDeviceGone):
		return Errorf(Denied, "%w", err)
	case errors.Is(err, ErrUnapproved):
		return Errorf(Conflict, "%w; ask again", err)
	case errors.Is(err, ErrRecorded):
		return Errorf(Conflict, "the same request was answered on another connection (%w); ask again", err)
	case errors.Is(err, ErrReplaced), errors.Is(err, ErrWithdrawn), errors.Is(err, ErrAccountGone):
		return Errorf(Unauthenticated, "%w", err)
	}
	return err
}

// revokeByRule carries out a rule's `revoke: true`: the device's certificates
// are revoked, but for the one just issued to it.
func (s *Service) revokeByRule(ctx context.Context, d *device.Device, decision policy.Decision, r Request, keep ...Serial) {
	if !decision.Revoke {
		return
	}
	if _, err := s.RevokeDevice(ctx, d.ID, ReasonPrivilegeWithdrawn, "rule:"+decision.Rule, keep...); err != nil {
		s.log.Error("a rule asks to revoke and it failed", "rule", decision.Rule, "device", d.ID, "err", err)
	}
}

// refused puts the refusal of an authenticated requester on the audit log (repeated
// ones as a count), and
// makes every error one that protocols can map.
func (s *Service) refused(ctx context.Context, r Request, err error) error {
	e := AsError(err)
	if e.Kind == Internal {
		s.log.Error("enrolment failed", "protocol", r.Protocol, "actor", r.Requester.Actor(), "err", err)
		return e
	}
	if r.Requester.Kind == "" || e.Kind == Unavailable || e.Kind == Pending {
		return e // a request that waits is on the log once, not each time it asks
	}
	s.counts.refused.Add(1)
	s.budgets.refusal(r.Address, s.now())
	ev := Event{Time: s.now(), Kind: EventRefused, Actor: r.Requester.Actor(), Protocol: r.Protocol,
		Device: r.Requester.Device, Outcome: e.Kind.String(), Rule: e.Rule, Policy: s.Policy().Version(), Reason: e.Reason}
	s.recordRefusals(ctx, s.refusals.add(ev))
	return e
}

func (s *Service) event(kind EventKind, r Request, c *Certificate) Event {
	sum := sha256.Sum256(c.DER)
	e := Event{Time: c.IssuedAt, Kind: kind, Actor: c.Actor, Protocol: r.Protocol, Device: c.Device, Issuer: c.Issuer,
		Serial: c.Serial, Outcome: string(c.Decision.Outcome), Rule: c.Decision.Rule, Policy: c.Decision.Version,
		Digest: hex.EncodeToString(sum[:])}
	for i, ra := range r.Approvers {
		e.Reason += []string{"approved by ", ", "}[min(i, 1)] + "ra:" + ra.Name
	}
	return e
}
