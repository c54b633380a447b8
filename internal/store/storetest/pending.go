package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

var roomy = ca.PendingLimits{PerDevice: 100, PerRequester: 100, Overall: 100}

// Request is a request that waits for a week from Start on.
func Request(id string) *ca.PendingRequest {
	return &ca.PendingRequest{Key: Key(), State: ca.PendingWaiting, Device: id, Level: "software", Profile: "device", Protocol: "est", Operation: "enroll",
		Names: []policy.Name{{Form: "subject.cn", Value: id}}, Algorithm: "ecdsa-p256", KeySHA256: "ab", Requester: "credential", Actor: "credential:abc",
		Decision: policy.Decision{Outcome: policy.Issue, Rule: "sound", Reasons: []string{"because"}}, Created: Start, Expires: Start.Add(7 * 24 * time.Hour)}
}

func addRequest(t *testing.T, e Engine, p *ca.PendingRequest) *ca.PendingRequest {
	t.Helper()
	return value[*ca.PendingRequest](t)(e.AddPending(t.Context(), p, roomy, Event(ca.EventRequestPending, p.Device)))
}

func ruling(approve bool) ca.Ruling {
	return ca.Ruling{Approve: approve, By: "admin:test", Reason: "seen", Time: Start.Add(time.Second)}
}

func testPending(t *testing.T, e Engine) {
	asked := Request("Lamp-1")
	_, err := e.Pending(t.Context(), asked.Key)
	wantErr(t, err, ca.ErrNoRecord)
	first := addRequest(t, e, asked)
	again := *asked
	again.Address = "elsewhere"
	if found := addRequest(t, e, &again); found.ID != first.ID || found.Address != "" {
		t.Errorf("the same request again: %+v", found)
	}
	got := value[*ca.PendingRequest](t)(e.Pending(t.Context(), asked.Key))
	asked.ID = first.ID
	if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *asked) {
		t.Errorf("read back\n%+v, want\n%+v", *got, *asked)
	}
	events := value[[]store.LoggedEvent](t)(e.EventLog(t.Context(), store.EventFilter{}, 0, 10))
	if len(events) != 1 || events[0].Request != first.ID {
		t.Errorf("events %+v", events)
	}
	if id := value[int64](t)(e.NewestEvent(t.Context())); id != events[0].ID {
		t.Errorf("the newest event is %d", id)
	}

	_, err = e.DecidePending(t.Context(), 99, ruling(true), Event(ca.EventRequestApproved, ""))
	wantErr(t, err, ca.ErrNoRecord)
	approved := value[*ca.PendingRequest](t)(e.DecidePending(t.Context(), first.ID, ruling(true), Event(ca.EventRequestApproved, "")))
	if approved.State != ca.PendingApproved || approved.By != "admin:test" || approved.Decided == nil || !approved.Decided.Equal(ruling(true).Time) {
		t.Errorf("approved: %+v", approved)
	}
	stands, err := e.DecidePending(t.Context(), first.ID, ruling(false), Event(ca.EventRequestDenied, ""))
	wantErr(t, err, ca.ErrDecided)
	if stands == nil || stands.State != ca.PendingApproved {
		t.Errorf("after a second decision: %+v", stands)
	}
	if n := len(value[[]store.LoggedEvent](t)(e.EventLog(t.Context(), store.EventFilter{Device: "lamp-1"}, 0, 10))); n != 2 {
		t.Errorf("%d events of the device", n)
	}

	// A late ruling, and an expired request that is asked for again.
	old := Request("lamp-2")
	old.Created, old.Expires = Start.Add(-48*time.Hour), Start.Add(-24*time.Hour)
	late := addRequest(t, e, old)
	gone, err := e.DecidePending(t.Context(), late.ID, ruling(true), Event(ca.EventRequestApproved, ""))
	wantErr(t, err, ca.ErrDecided)
	if gone == nil || gone.State != ca.PendingExpired {
		t.Errorf("a late ruling: %+v", gone)
	}
	renewed := *old
	renewed.Created, renewed.Expires = Start, Start.Add(time.Hour)
	if next := addRequest(t, e, &renewed); next.ID == late.ID {
		t.Error("an expired request goes on")
	}
	if newest := value[*ca.PendingRequest](t)(e.Pending(t.Context(), old.Key)); newest.ID == late.ID {
		t.Error("the older of two requests was found")
	}
}

func testPendingLimits(t *testing.T, e Engine) {
	add := func(id string) (*ca.PendingRequest, error) {
		return e.AddPending(t.Context(), Request(id), ca.PendingLimits{PerDevice: 2, PerRequester: 100, Overall: 4}, Event(ca.EventRequestPending, id))
	}
	first := value[*ca.PendingRequest](t)(add("lamp-1"))
	value[*ca.PendingRequest](t)(add("LAMP-1"))
	_, err := add("lamp-1")
	wantErr(t, err, ca.ErrCrowded)
	value[*ca.PendingRequest](t)(add("lamp-2"))
	value[*ca.PendingRequest](t)(add("lamp-3"))
	_, err = add("lamp-4")
	wantErr(t, err, ca.ErrCrowded)
	value[*ca.PendingRequest](t)(e.DecidePending(t.Context(), first.ID, ruling(false), Event(ca.EventRequestDenied, "")))
	value[*ca.PendingRequest](t)(add("lamp-1"))
	wait := func(want ...string) {
		t.Helper()
		var got []string
		for _, p := range value[[]ca.PendingRequest](t)(e.Pendings(t.Context(), ca.PendingFilter{State: ca.PendingWaiting}, 0, 100)) {
			got = append(got, p.Actor+" "+p.Device)
		}
		if !slices.Equal(got, want) {
			t.Errorf("waiting: %q, want %q", got, want)
		}
	}
	wait("credential:abc LAMP-1", "credential:abc lamp-2", "credential:abc lamp-3", "credential:abc lamp-1")

	// A full table: others get a place of whoever has two more than they.
	by := func(actor, credential, id string) (*ca.PendingRequest, error) {
		p := Request(id)
		p.Actor, p.Credential = actor, credential
		return e.AddPending(t.Context(), p, ca.PendingLimits{PerDevice: 2, PerRequester: 3, Overall: 4}, Event(ca.EventRequestPending, id))
	}
	value[*ca.PendingRequest](t)(by("ra:line", "", "gate-1"))
	wait("credential:abc LAMP-1", "credential:abc lamp-2", "credential:abc lamp-3", "ra:line gate-1")
	value[*ca.PendingRequest](t)(by("account:1", "xyz", "gate-2"))
	wait("credential:abc LAMP-1", "credential:abc lamp-2", "ra:line gate-1", "account:1 gate-2")
	_, err = by("account:2", "xyz", "gate-3") // the same credential's
	wantErr(t, err, ca.ErrCrowded)
	if errors.Is(err, ca.ErrCrowdedRequester) || errors.Is(err, ca.ErrCrowdedDevice) {
		t.Errorf("refused for another cause: %v", err)
	}
	// What ends with what.
	must(t, e.AddCredential(t.Context(), Credential("xyz", 1), Event(ca.EventCredentialAdded, "")))
	must(t, e.RevokeCredential(t.Context(), "xyz", Start, Event(ca.EventCredentialRevoked, "")))
	wait("credential:abc LAMP-1", "credential:abc lamp-2", "ra:line gate-1")
	for i := range 3 {
		_, err = by("ra:line", "", fmt.Sprintf("gate-%d", i))
		if i == 2 {
			wantErr(t, err, ca.ErrCrowded)
		}
	}
	must(t, e.AddRA(t.Context(), &ca.RA{Name: "line", Cert: []byte("certificate"), KeyID: Key(), Created: Start}, Event(ca.EventRAAdded, "")))
	must(t, e.RemoveRA(t.Context(), "line", Start, Event(ca.EventRARemoved, "")))
	wait("credential:abc LAMP-1", "credential:abc lamp-2")
	value[*ca.PendingRequest](t)(by("manufacturer:acme", "", "gate-1"))
	must(t, e.AddManufacturer(t.Context(), &ca.Manufacturer{Name: "acme", Format: "idevid", Created: Start}, Event(ca.EventManufacturerAdded, "")))
	must(t, e.WithdrawManufacturer(t.Context(), "acme", "", Start, Event(ca.EventManufacturerWithdrawn, "")))
	wait("credential:abc LAMP-1", "credential:abc lamp-2")
	for range 3 {
		_, err = by("account:9", "", fmt.Sprintf("gate-%d", 9))
	}
	wantErr(t, err, ca.ErrCrowdedDevice)
	if n := len(value[[]store.LoggedEvent](t)(e.EventLog(t.Context(), store.EventFilter{Kind: ca.EventRequestVoid}, 0, 100))); n != 5 {
		t.Errorf("%d events of void requests, want 5", n)
	}

	// Those long expired go when another comes; an ID never comes back.
	ancient := Request("lamp-9")
	ancient.Created, ancient.Expires = Start.Add(-90*24*time.Hour), Start.Add(-60*24*time.Hour)
	was := addRequest(t, e, ancient)
	next := addRequest(t, e, Request("lamp-9"))
	_, err = e.PendingByID(t.Context(), was.ID)
	wantErr(t, err, ca.ErrNoRecord)
	if next.ID <= was.ID {
		t.Errorf("ID %d after %d", next.ID, was.ID)
	}
}

func testListPending(t *testing.T, e Engine) {
	m := NewMake(t, e, 1)
	for i := range 6 {
		p := Request(fmt.Sprintf("Lamp-%d", i%2))
		if i == 4 {
			p.Created, p.Expires = Start.Add(-2*time.Hour), Start.Add(-time.Hour)
		}
		addRequest(t, e, p)
	}
	for id, approve := range map[int64]bool{2: true, 3: false, 6: true} {
		value[*ca.PendingRequest](t)(e.DecidePending(t.Context(), id, ruling(approve), Event(ca.EventRequestApproved, "")))
	}
	i := m.Enrol("lamp-1", "")
	i.Pending = 6
	Record(t, e, i)
	if n := value[int64](t)(e.CountWaiting(t.Context())); n != 2 {
		t.Errorf("%d wait", n)
	}
	for name, c := range map[string]struct {
		filter ca.PendingFilter
		after  int64
		limit  int
		want   []int64
	}{
		"all":                {ca.PendingFilter{}, 0, 100, []int64{1, 2, 3, 4, 5, 6}},
		"page":               {ca.PendingFilter{}, 2, 2, []int64{3, 4}},
		"waiting":            {ca.PendingFilter{State: ca.PendingWaiting}, 0, 100, []int64{1, 4}},
		"approved":           {ca.PendingFilter{State: ca.PendingApproved}, 0, 100, []int64{2}},
		"denied":             {ca.PendingFilter{State: ca.PendingDenied}, 0, 100, []int64{3}},
		"expired":            {ca.PendingFilter{State: ca.PendingExpired}, 0, 100, []int64{5}},
		"issued":             {ca.PendingFilter{State: ca.PendingIssued}, 0, 100, []int64{6}},
		"device":             {ca.PendingFilter{Device: "LAMP-1"}, 0, 100, []int64{2, 4, 6}},
		"device and waiting": {ca.PendingFilter{Device: "lamp-1", State: ca.PendingWaiting}, 0, 100, []int64{4}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int64
			for _, p := range value[[]ca.PendingRequest](t)(e.Pendings(t.Context(), c.filter, c.after, c.limit)) {
				got = append(got, p.ID)
				if c.filter.State != "" && p.State != c.filter.State {
					t.Errorf("request %d is %s", p.ID, p.State)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// testSpendPending: an approval is spent with its certificate, once, or not at all.
func testSpendPending(t *testing.T, e Engine) {
	m := NewMake(t, e, 40)
	value[[]error](t)(e.AddDevices(t.Context(), []device.Device{Device("lamp-1")}, Event(ca.EventDeviceAdded, "lamp-1")))
	must(t, e.AddCredential(t.Context(), Credential("once", 1), Event(ca.EventCredentialAdded, "")))
	for name, c := range map[string]struct {
		rule func(id int64)
		late bool
	}{
		"waiting": {func(int64) {}, false},
		"denied": {func(id int64) {
			value[*ca.PendingRequest](t)(e.DecidePending(t.Context(), id, ruling(false), Event(ca.EventRequestDenied, "")))
		}, false},
		"expired": {func(id int64) {
			value[*ca.PendingRequest](t)(e.DecidePending(t.Context(), id, ruling(true), Event(ca.EventRequestApproved, "")))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := addRequest(t, e, Request("lamp-1"))
			c.rule(p.ID)
			i := m.Issuance("lamp-1")
			i.Pending = p.ID
			if c.late {
				i.Certificate.IssuedAt = p.Expires
			}
			wantErr(t, e.Record(t.Context(), i), ca.ErrUnapproved)
		})
	}

	p := addRequest(t, e, Request("lamp-1"))
	value[*ca.PendingRequest](t)(e.DecidePending(t.Context(), p.ID, ruling(true), Event(ca.EventRequestApproved, "")))
	// A record that fails for another reason leaves the approval.
	spent := m.Issuance("lamp-1")
	spent.Pending, spent.Credential = p.ID, "nobody"
	wantErr(t, e.Record(t.Context(), spent), ca.ErrSpent)
	if now := value[*ca.PendingRequest](t)(e.PendingByID(t.Context(), p.ID)); now.State != ca.PendingApproved {
		t.Errorf("a refused record left the request %s", now.State)
	}
	var won atomic.Int64
	var serial atomic.Value
	var wg sync.WaitGroup
	for range 32 {
		i := m.Issuance("lamp-1")
		i.Pending = p.ID
		wg.Go(func() {
			switch err := e.Record(t.Context(), i); {
			case err == nil:
				won.Add(1)
				serial.Store(i.Certificate.Serial)
			case !errors.Is(err, ca.ErrUnapproved):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	done := value[*ca.PendingRequest](t)(e.PendingByID(t.Context(), p.ID))
	if won.Load() != 1 || done.State != ca.PendingIssued || done.Serial != serial.Load() {
		t.Errorf("%d certificates for one approval; it is now %+v", won.Load(), done)
	}
}
