package admin

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/device"
)

func TestWindow(t *testing.T) {
	c := newWorld(t).local()
	for query, want := range map[string]string{
		"order=odd":                                 "oldest or newest",
		"since=soon":                                "since must be a time",
		"order=newest&after=lamp-1":                 "next key",
		"order=newest&after=x~y":                    "next key",
		"order=newest&after=7~":                     "next key",
		"since=2030-01-01T00:00:00Z&after=7~lamp-1": "",
		"order=newest":                              "",
		"order=oldest&after=lamp-1":                 "",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		_, err = get[Page[device.Device]](t.Context(), c, "/devices", q)
		if p, _ := errors.AsType[*Problem](err); (err == nil) != (want == "") || p != nil && (p.Status != 400 || !strings.Contains(p.Detail, want)) {
			t.Errorf("%s: %v", query, err)
		}
	}
	at := time.UnixMicro(1_900_000_000_000_007)
	if got := windowKey(device.Window{Newest: true}, at, "lamp~1"); got != "1900000000000007~lamp~1" {
		t.Error(got)
	}
	for _, r := range Roles() {
		if r.May() == "" {
			t.Errorf("nothing says what %s may do", r)
		}
	}
}
