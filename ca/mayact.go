package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// Act is what a requester wants done for a device.
type Act string

// The acts.
const (
	ActAsk     Act = "ask"     // learn what to ask for: CMP genm, EST csrattrs
	ActEnrol   Act = "enrol"   // get a certificate, the next one included; poll for it; attest or prove a name for it
	ActRevoke  Act = "revoke"  // end a certificate for good
	ActHold    Act = "hold"    // end a certificate until it is released
	ActRelease Act = "release" // end a hold
)

// Deed is an act, and what it is done to.
type Deed struct {
	Act         Act
	Device      string       // that the request names; it counts where the requester is not bound to one device
	Certificate *Certificate // that is revoked, held or released
	Key         [32]byte     // SHA-256 of the SubjectPublicKeyInfo to be certified; zero if the CA makes the key
	Approvers   []*RA        // that approve of what the requester asks (RFC 9483 §5.2.2.1)
	// Authorized says that an ACME account got the certificate, or holds authorizations
	// for all that it names (RFC 8555 §7.6).
	Authorized bool
}

// MayActFor answers the one question of every act of every protocol: may this requester do this
// for this device? It reports why not: Unauthenticated, Denied (with the rule), or Unavailable.
// Enroll asks it by itself.
//
//	requester                     ask, enrol                     revoke, hold                   release
//	certificate of ours           its own device                 itself (RFC 9483 §4.2)         never
//	– lapsed, may still renew     its device, with the same key  no: it has expired             never
//	– lapsed for longer           no                             no                             never
//	– revoked or on hold          does not authenticate (AuthenticateCertificate)
//	quarantine certificate        as a certificate of ours
//	IDevID (manufacturer)         its device, if no other brought it in, and of the             never
//	                              manufacturer's level
//	credential of a device        its device                     no: an rr is signed (§4.2)     never
//	credential of a group         devices that it covers, new or no                             never
//	                              first enrolled with it
//	registration authority        devices of its names and       the same (RFC 9483 §5.3.2),    the same, where the
//	                              levels                         in whatever state              profile says release
//	ACME account                  as its credential; without     a certificate that it got, or  never
//	                              one, what policy grants        whose names it is authorized
//	                                                             for (RFC 8555 §7.6)
//
// A device that is manufactured, suspended or retired may do nothing, nor may an account for it;
// only a registration authority revokes for it. Each approver must be free to act for the device
// as if it asked itself.
//
// A certificate revokes itself and no other of its device: who found a discarded key, or renewed
// with it, must not be able to end the certificate that took its place. A device that
// has lost its key is revoked for by its IDevID, a registration authority or an administrator.
//
// A certConf is not asked about here: it belongs to whoever began the transaction, and only takes
// or gives back what that issued (RFC 9483 §3.1, §4.1.1).
func (s *Service) MayActFor(ctx context.Context, r Requester, deed Deed) error {
	id, err := r.deviceOf(deed)
	if err != nil || id == "" {
		return err
	}
	d := r.standing
	if d == nil || !device.SameID(d.ID, id) {
		if d, err = s.ledger.Device(ctx, id); err != nil && !errors.Is(err, ErrNoRecord) {
			return err
		}
	}
	_, _, err = s.current.Load().mayAct(&r, deed, id, d, s.now())
	return err
}

// deviceOf is the device that a deed is for: the requester's own, or one that it may act for. It is ""
// where a requester that is bound to no device asks a question and names none.
func (r *Requester) deviceOf(deed Deed) (string, error) {
	id := deed.Device
	if c := deed.Certificate; c != nil {
		if id = c.Device; id == "" {
			return "", Errorf(Denied, "certificate %s is the CA's own, and only an administrator ends it", c.Serial)
		}
	}
	switch {
	case r.Kind == "":
		return "", Errorf(Unauthenticated, "the request has no requester: authenticate first")
	case r.Account != 0 && deed.Certificate != nil:
		return id, nil // by authorization, which is not bound to a device
	case r.Device != "" && deed.Certificate == nil:
		return r.Device, nil
	case r.Device != "":
		if !device.SameID(r.Device, id) {
			return "", Errorf(Denied, "certificate %s is of another device than %s", deed.Certificate.Serial, r.Device)
		}
		return id, nil
	case id == "" && deed.Act == ActAsk:
		return "", nil
	case id == "":
		return "", Errorf(Denied, "the request names no device: put the device ID into the common name")
	}
	if err := device.CheckID(id); err != nil {
		return "", Errorf(Denied, "%w", err)
	}
	return id, r.covers(id)
}

// mayAct judges a deed for the device id, with its line in the inventory (nil if it is not there). It
// returns the device that the requester acts for; added says that it would bring it in.
func (st *state) mayAct(r *Requester, deed Deed, id string, d *device.Device, now time.Time) (_ *device.Device, added bool, err error) {
	switch {
	case d == nil:
		if d, added = r.newcomer(id, now), true; d == nil {
			return nil, false, Errorf(Denied, "there is no device %s: register it first", id)
		}
		if err = device.CheckNewID(id); err != nil {
			err = Errorf(Denied, "%w", err)
		}
	case deed.ends() && (r.RA != nil || r.Account != 0 && !device.SameID(r.Device, d.ID)):
		// An RA may revoke for a device in any state; an account's authorization for names is bound to no device.
		if r.RA != nil {
			err = r.RA.mayEnrol(d)
		} else {
			err = inService(d)
		}
	default:
		if err = inService(d); err == nil {
			err = r.mayEnrol(d)
		}
	}
	for i := 0; err == nil && i < len(deed.Approvers); i++ {
		err = deed.Approvers[i].mayApprove(d)
	}
	if err == nil && r.Lapsed > 0 {
		err = st.mayLapsed(r, deed)
	}
	if err == nil && deed.Act != ActAsk && deed.Act != ActEnrol {
		err = st.mayEnd(r, deed)
	}
	return d, added, err
}

// ends reports whether the act ends a certificate.
func (deed *Deed) ends() bool { return deed.Act == ActRevoke || deed.Act == ActHold }

// inService reports why nothing is done for a device as it is.
func inService(d *device.Device) error {
	switch {
	case d.State == device.Manufactured:
		return Errorf(Denied, "device %s is manufactured and not yet claimed: it gets no certificate before its owner claims it", d.ID)
	case !d.State.MayEnrol():
		return Errorf(Denied, "device %s is %s and gets no certificates", d.ID, d.State)
	}
	return nil
}

// mayLapsed: a device that lay in a warehouse may come back with the same key for as
// long as its profile says. Its expired certificate is good for that, and for the questions before it, alone.
func (st *state) mayLapsed(r *Requester, deed Deed) error {
	old := r.Certificate
	expired := fmt.Sprintf("the certificate expired at %s", old.NotAfter.UTC().Format(time.RFC3339))
	profile, ok := st.policy.Profile(old.Profile)
	switch {
	case !ok || profile.RenewExpired == 0:
		return Errorf(Unauthenticated, "%s: enrol with a credential", expired)
	case r.Lapsed > profile.RenewExpired:
		return Errorf(Unauthenticated, "%s, more than the %s ago that profile %s allows: enrol with a credential", expired, profile.RenewExpired, old.Profile)
	case deed.Act != ActAsk && deed.Act != ActEnrol:
		return Errorf(Unauthenticated, "%s: it can be renewed, and nothing else", expired)
	case deed.Act == ActEnrol && deed.Key != old.KeyID:
		return Errorf(Unauthenticated, "%s: it can be renewed only with the same key, or enrol with a credential", expired)
	}
	return nil
}

// mayEnd reports why the requester may not revoke, hold or release a certificate of a device that it may act for.
func (st *state) mayEnd(r *Requester, deed Deed) error {
	c := deed.Certificate
	switch {
	case c == nil:
		return fmt.Errorf("%s without a certificate", deed.Act)
	case deed.Act == ActRelease && r.RA == nil:
		return Errorf(Denied, "a certificate on hold is released by a registration authority or an administrator, not by the device")
	case deed.Act == ActRelease:
		if profile, _ := st.policy.Profile(c.Profile); !profile.Release {
			return &Error{Kind: Denied, Reason: "profile " + c.Profile + " does not let registration authorities release certificates from hold: an administrator does",
				Rule: "profiles." + c.Profile + ".release"}
		}
	case r.RA != nil, r.Kind == policy.ByIDevID, r.Account != 0 && deed.Authorized:
	case r.Account != 0:
		return Errorf(Denied, "the account did not get the certificate, and is not authorized for all that it names (RFC 8555 section 7.6)")
	case r.Certificate == nil:
		return Errorf(Denied, "an enrolment credential revokes nothing: sign with the certificate that is to be revoked")
	case r.Certificate.Serial != c.Serial:
		return Errorf(Denied, "certificate %s revokes itself alone (RFC 9483 section 4.2): sign with the one that is to be revoked, or have an administrator revoke it", r.Certificate.Serial)
	}
	return nil
}
