package client

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestClockBehind: a device whose clock stands at 1970 does not say that all is well.
func TestClockBehind(t *testing.T) {
	s := newESTServer(t, newTestCA(t, "good"), nil)
	c := s.config(t)
	mustRun(t, c)
	c.Now = func() time.Time { return time.Unix(100, 0) }
	_, err := Run(t.Context(), c)
	wantError(t, err, Local, "clock says 1970-01-01")
	if HintOf(err) != "set the clock; key and certificate are in place" {
		t.Errorf("hint %q", HintOf(err))
	}
	if r, err := Show(c); err != nil || r.Device != "sensor-1" {
		t.Errorf("show: %+v, %v", r, err)
	}
}

// TestOtherNames: names that a renewal cannot bring are told of.
func TestOtherNames(t *testing.T) {
	s := newESTServer(t, newTestCA(t, "good"), nil)
	c := s.config(t)
	c.AltNames = AltNames{DNS: []string{"a.example"}, IP: []net.IP{net.IPv4(192, 0, 2, 1)}}
	if r := mustRun(t, c); len(r.Warnings) != 0 {
		t.Errorf("%q", r.Warnings)
	}
	if r := mustRun(t, c); len(r.Warnings) != 0 {
		t.Errorf("nothing changed: %q", r.Warnings)
	}
	c.AltNames = AltNames{DNS: []string{"A.example", "b.example"}, IP: []net.IP{net.IPv4(192, 0, 2, 2)}}
	for _, renew := range []bool{false, true} {
		c.Renew = renew
		if r := mustRun(t, c); len(r.Warnings) != 2 || !strings.Contains(r.Warnings[0], "DNS b.example") || !strings.Contains(r.Warnings[1], "IP 192.0.2.2") || !strings.Contains(r.Warnings[0], "-force") {
			t.Errorf("renew %v: %q", renew, r.Warnings)
		}
	}
}

// TestWatchWarns: names that the certificate does not have are told of when the watch begins, and not at each turn.
func TestWatchWarns(t *testing.T) {
	s := newESTServer(t, newTestCA(t, "good"), nil)
	c := s.config(t)
	mustRun(t, c)
	c.AltNames = AltNames{DNS: []string{"b.example"}}
	var log strings.Builder
	a := Agent{Config: c}
	for i := range 3 {
		a.Config.Renew = i == 2
		if _, err := a.once(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatal(err)
		}
		if n, want := strings.Count(log.String(), "DNS b.example"), []int{1, 1, 2}[i]; n != want {
			t.Errorf("turn %d: told %d times, want %d", i, n, want)
		}
	}
}

// TestFullDisk: where there is no room for an answer, none is asked for; and the room is given back.
func TestFullDisk(t *testing.T) {
	s := newESTServer(t, newTestCA(t, "good"), nil)
	c := s.config(t)
	mustRun(t, c)
	c.Renew, c.KeepKey = true, true
	for range 3 {
		r, err := newRun(c)
		if err != nil {
			t.Fatal(err)
		}
		full := errors.New("no space left on device")
		r.store.step = func(op, name string) error {
			if op == "write" && name == temporary(reserveFile) {
				return full
			}
			return nil
		}
		_, err = r.run(t.Context())
		if !errors.Is(err, full) || KindOf(err) != Local {
			t.Errorf("%v", err)
		}
	}
	if n := s.count("simplereenroll"); n != 0 {
		t.Errorf("%d certificates were asked for", n)
	}
	gone := func() {
		t.Helper()
		if _, err := os.Lstat(c.Dir + "/" + reserveFile); err == nil {
			t.Error("the room is still taken")
		}
	}
	s.ops["simplereenroll"] = status(403, "no", "")(s)
	_, err := Run(t.Context(), c)
	wantError(t, err, Refused, "no")
	gone()
	delete(s.ops, "simplereenroll")
	var room int64
	s.edit = func(*x509.Certificate) {
		if info, err := os.Lstat(c.Dir + "/" + reserveFile); err == nil {
			room = info.Size()
		}
	}
	mustRun(t, c)
	if room < 64<<10 {
		t.Errorf("%d octets were kept free while the CA issued", room)
	}
	gone()
}

// TestAgentOpens: what a run needs is got before each, and given back after it.
func TestAgentOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeCA{t: t, ca: newTestCA(t, "good"), validity: 100 * time.Hour}
		key := opaqueSigner{newKey(t)}
		var opened, shut, hooked int
		a := Agent{Config: Config{Dir: t.TempDir(), Device: "sensor-1", Enroller: f},
			Open: func(_ context.Context, c *Config) (func() error, error) {
				if opened++; opened == 1 {
					return nil, &Error{Kind: Local, Text: "the TPM is not there yet"}
				}
				c.Signer = key
				return func() error { shut++; return errors.New("it was restarted meanwhile") }, nil
			},
			Hook: func(context.Context, Result) error {
				if hooked++; opened != shut+2 {
					t.Error("shut before the hook was done")
				}
				return nil
			}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
		defer cancel()
		a.Watch(ctx)
		if opened < 5 || shut != opened-1 || hooked != 1 || len(f.at) != 1 {
			t.Errorf("opened %d, shut %d, hooked %d, asked %d", opened, shut, hooked, len(f.at))
		}
	})
}

func TestCommandHook(t *testing.T) {
	dir := t.TempDir()
	script := dir + "/my script"
	writeFile(t, script, []byte("#!/bin/sh\necho \"program $DEVICECA_SERIAL [$DEVICECA_SECRET]\"\n"), 0o755)
	t.Setenv("DEVICECA_SECRET", testSecret)
	for command, want := range map[string]string{
		script: "program 17 []\n",
		`echo "line $DEVICECA_SERIAL [$DEVICECA_SECRET]" | tr a-z A-Z`: "LINE 17 []\n",
		"true": "",
	} {
		var out strings.Builder
		if err := CommandHook(command, &out)(t.Context(), Result{Serial: "17"}); err != nil || out.String() != want {
			t.Errorf("%s: %q, %v", command, &out, err)
		}
	}
	for _, command := range []string{"false", "exit 3", dir + "/none"} {
		var out strings.Builder
		if err := CommandHook(command, &out)(t.Context(), Result{}); err == nil {
			t.Errorf("%s: no error, %q", command, &out)
		}
	}
}
