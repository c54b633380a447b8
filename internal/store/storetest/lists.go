package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

func testListCertificates(t *testing.T, e Engine) {
	m := NewMake(t, e, 10)
	for i := range 6 {
		c := m.Enrol(fmt.Sprintf("Lamp-%d", i%3), "")
		c.Certificate.Profile = []string{"device", "gateway"}[i%2]
		c.Certificate.NotAfter = Start.Add(time.Duration(i) * 24 * time.Hour)
		Record(t, e, c)
	}
	if _, err := e.ReserveIndexes(t.Context(), "quarantine-1", 10); err != nil {
		t.Fatal(err)
	}
	other := m.Issuance("lamp-0")
	other.Certificate.Issuer, other.Certificate.Profile, other.Certificate.NotAfter = "quarantine-1", "remediation", Start.Add(100*24*time.Hour)
	other.Event.Issuer = "quarantine-1"
	Record(t, e, other)
	for _, id := range []int64{2, 5} {
		c := value[[]ca.Certificate](t)(e.Certificates(t.Context(), ca.CertificateFilter{}, id-1, 1))[0]
		value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{c.Serial}, ca.Revocation{Time: Start}, Event(ca.EventRevoked, "")))
	}
	yes, no := true, false
	for name, c := range map[string]struct {
		filter ca.CertificateFilter
		after  int64
		limit  int
		want   []int64
	}{
		"all":                 {ca.CertificateFilter{}, 0, 100, []int64{1, 2, 3, 4, 5, 6, 7}},
		"page":                {ca.CertificateFilter{}, 2, 3, []int64{3, 4, 5}},
		"device":              {ca.CertificateFilter{Device: "LAMP-0"}, 0, 100, []int64{1, 4, 7}},
		"unknown device":      {ca.CertificateFilter{Device: "lamp-9"}, 0, 100, nil},
		"issuer":              {ca.CertificateFilter{Issuer: "quarantine-1"}, 0, 100, []int64{7}},
		"profile":             {ca.CertificateFilter{Profile: "gateway"}, 0, 100, []int64{2, 4, 6}},
		"revoked":             {ca.CertificateFilter{Revoked: &yes}, 0, 100, []int64{2, 5}},
		"revoked, page":       {ca.CertificateFilter{Revoked: &yes}, 2, 100, []int64{5}},
		"revoked of a device": {ca.CertificateFilter{Revoked: &yes, Device: "lamp-1"}, 0, 100, []int64{2, 5}},
		"not revoked":         {ca.CertificateFilter{Revoked: &no}, 0, 100, []int64{1, 3, 4, 6, 7}},
		"expires before":      {ca.CertificateFilter{ExpiresBefore: Start.Add(48 * time.Hour)}, 0, 100, []int64{1, 2}},
		"expires after":       {ca.CertificateFilter{ExpiresAfter: Start.Add(4 * 24 * time.Hour)}, 0, 100, []int64{6, 7}},
		"everything said":     {ca.CertificateFilter{Device: "lamp-1", Issuer: Issuer, Profile: "device", Revoked: &yes, ExpiresBefore: Start.Add(5 * 24 * time.Hour), ExpiresAfter: Start}, 0, 100, []int64{5}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int64
			for _, c := range value[[]ca.Certificate](t)(e.Certificates(t.Context(), c.filter, c.after, c.limit)) {
				got = append(got, c.ID)
				if (c.Revocation != nil) != (c.ID == 2 || c.ID == 5) {
					t.Errorf("certificate %d: revocation %+v", c.ID, c.Revocation)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Who pages through a list while others insert sees everything that was there
// when it began, once, in order.
func testPaging(t *testing.T, e Engine) {
	const there, more = 200, 200
	m := NewMake(t, e, there+more)
	serials := map[ca.Serial]bool{}
	for i := range there {
		serials[Record(t, e, m.Enrol(fmt.Sprintf("lamp-%03d", i), "")).Serial] = true
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range more {
			if err := e.Record(t.Context(), m.Enrol(fmt.Sprintf("lamp-%03d-x", i%there), "")); err != nil {
				t.Error(err)
			}
		}
	})
	var last int64
	for {
		page := value[[]ca.Certificate](t)(e.Certificates(t.Context(), ca.CertificateFilter{}, last, 7))
		for _, c := range page {
			if c.ID <= last {
				t.Fatalf("%d after %d", c.ID, last)
			}
			last = c.ID
			delete(serials, c.Serial)
		}
		if len(page) < 7 {
			break
		}
	}
	if len(serials) > 0 {
		t.Errorf("%d certificates were not listed", len(serials))
	}
	seen, after := 0, ""
	for {
		page, err := e.Devices(t.Context(), deviceFilter, after, 7)
		must(t, err)
		for _, d := range page {
			if d.ID <= after {
				t.Fatalf("%s after %s", d.ID, after)
			}
			after = d.ID
			if len(d.ID) == len("lamp-000") {
				seen++
			}
		}
		if len(page) < 7 {
			break
		}
	}
	if seen != there {
		t.Errorf("%d devices were listed of %d", seen, there)
	}
	wg.Wait()
}
