package ca_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// TestStatusChanges: a hold ends by release or for good, and those who publish
// status hear of every change of a certificate that has one.
func TestStatusChanges(t *testing.T) {
	a := newAuthority(t, nil)
	var heard []string
	a.opts.Changed = func(_ context.Context, issuer string, serials []ca.Serial) {
		slices.SortFunc(serials, func(x, y ca.Serial) int { return int(x.Index()) - int(y.Index()) })
		heard = append(heard, fmt.Sprint(issuer, serials))
	}
	a.reopen()
	expect := func(what string, serials ...ca.Serial) {
		t.Helper()
		var want []string
		if len(serials) > 0 {
			want = []string{fmt.Sprint("issuing-1", serials)}
		}
		if !slices.Equal(heard, want) {
			t.Errorf("%s: heard %v, want %v", what, heard, want)
		}
		heard = nil
	}
	r, _ := a.grant("lamp-1", "software", 5)
	one := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1")))).Certificate
	two := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1")))).Certificate
	quiet := a.request(r, newCSR(t, newKey(t), named("lamp-1")))
	quiet.Profile = "lamp" // noRevAvail
	none := a.enroll(quiet).Certificate
	if one.NoStatus || !none.NoStatus {
		t.Errorf("no status: %t, %t", one.NoStatus, none.NoStatus)
	}
	expect("issuance")

	revoke := func(serial ca.Serial, reason int) error {
		_, err := a.Revoke(t.Context(), serial, reason, nil, "admin:test")
		return err
	}
	release := func(serial ca.Serial) error {
		_, err := a.Release(t.Context(), serial, "admin:test")
		return err
	}
	for _, step := range []struct {
		name   string
		err    error
		kind   ca.Kind
		serial ca.Serial
	}{
		{"hold", revoke(one.Serial, ca.ReasonCertificateHold), 0, one.Serial},
		{"release", release(one.Serial), 0, one.Serial},
		{"release again", release(one.Serial), ca.Conflict, ca.Serial{}},
		{"hold again", revoke(one.Serial, ca.ReasonCertificateHold), 0, one.Serial},
		{"hold what is held", revoke(one.Serial, ca.ReasonCertificateHold), ca.Conflict, ca.Serial{}},
		{"for good", revoke(one.Serial, ca.ReasonKeyCompromise), 0, one.Serial},
		{"release for good", release(one.Serial), ca.Conflict, ca.Serial{}},
		{"revoke again", revoke(one.Serial, ca.ReasonSuperseded), ca.Conflict, ca.Serial{}},
		{"unknown", release(ca.NewSerial(99, [12]byte{})), ca.NotFound, ca.Serial{}},
		{"without status", revoke(none.Serial, ca.ReasonCertificateHold), 0, ca.Serial{}},
		{"release without status", release(none.Serial), 0, ca.Serial{}},
		{"hold the other", revoke(two.Serial, ca.ReasonCertificateHold), 0, two.Serial},
	} {
		switch {
		case step.kind == 0 && step.err != nil:
			t.Errorf("%s: %v", step.name, step.err)
		case step.kind != 0 && ca.KindOf(step.err) != step.kind:
			t.Errorf("%s: %v", step.name, step.err)
		case !step.serial.IsZero():
			if want := fmt.Sprint("issuing-1", []ca.Serial{step.serial}); len(heard) == 0 || heard[0] != want {
				t.Errorf("%s: heard %v", step.name, heard)
			}
			heard = slices.Delete(heard, 0, min(1, len(heard)))
		}
	}
	expect("no more")

	// Retiring revokes what is on hold for good.
	revoked, err := a.MoveDevice(t.Context(), "lamp-1", device.Retired, ca.ReasonCessationOfOperation, "admin:test")
	if err != nil || revoked.Count != 2 {
		t.Fatalf("%d revoked, %v", revoked.Count, err)
	}
	expect("retire", two.Serial)
}
