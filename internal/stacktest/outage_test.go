package stacktest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// impatient is how long an enrolment may take to fail while something is away.
const impatient = 15 * time.Second

// comeback is how soon everything works again when it is back; the second half
// is for a loaded machine.
const comeback = 5*time.Second + 5*time.Second

func (h *home) readyz() int { status, _ := h.get("/readyz"); return status }

// away demands of a home that something is away from: enrolment says so in
// bounded time, /readyz is red, /healthz green.
func (h *home) away(t *testing.T, lamp *dev, id, what string) {
	t.Helper()
	eventually(t, impatient, "/readyz is red", func() bool {
		status, header := h.get("/readyz")
		if (status == http.StatusServiceUnavailable) != (header.Get("Retry-After") != "") {
			t.Errorf("/readyz %d with Retry-After %q", status, header.Get("Retry-After"))
		}
		return status == http.StatusServiceUnavailable
	})
	if status, _ := h.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz %d, though the process lives", status)
	}
	// On a disk that is full one enrolment may still find room in the write-ahead
	// log; it is issued then, and durable. A fill later there is none.
	var a answer
	eventually(t, impatient, "enrolment fails", func() bool {
		var err error
		if a, err = lamp.enroll(newCSR(t, newKey(t), id)); err != nil || a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
			t.Errorf("enrolment: %d %q %v", a.status, a.body, err)
		}
		return a.status != http.StatusOK
	})
	if !strings.Contains(a.body, what) {
		t.Errorf("enrolment: %d %q", a.status, a.body)
	}
	checkText(t, a)
	if a.took > impatient {
		t.Errorf("enrolment took %s to fail", a.took)
	}
	if a, err := lamp.do(request{method: "GET", path: "/.well-known/est/cacerts"}); err != nil || a.status != http.StatusOK {
		t.Errorf("cacerts: %d %q %v", a.status, a.body, err)
	}
}

// back demands that all works again soon.
func (h *home) back(t *testing.T, lamp *dev, id string) {
	t.Helper()
	ready := eventually(t, comeback, "/readyz is green", func() bool { return h.readyz() == http.StatusOK })
	csr := newCSR(t, newKey(t), id)
	enrols := eventually(t, comeback, "enrolment works", func() bool {
		a, err := lamp.enroll(csr)
		return err == nil && a.status == http.StatusOK
	})
	t.Logf("ready after %s, enrols after another %s", ready.Round(10*time.Millisecond), enrols.Round(10*time.Millisecond))
}

func TestTokenAway(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	group := h.addGroup("lamp-*", "1000000")
	lamp := h.device(h.addDevice("bulb-1"))
	for round, during := range []time.Duration{0, 3 * time.Second} {
		l := startLoad(t, h, group, "lamp-"+string(rune('a'+round)), 8)
		eventually(t, 20*time.Second, "some certificates", func() bool { return l.got(http.StatusOK) >= 20 })
		rename(t, h.path("tokens"), h.path("elsewhere"))
		h.away(t, lamp, "bulb-1", "token")
		time.Sleep(during)
		h.adminWhileTokenAway(t)
		rename(t, h.path("elsewhere"), h.path("tokens"))
		eventually(t, comeback, "/readyz is green", func() bool { return h.readyz() == http.StatusOK })
		before := l.got(http.StatusOK)
		eventually(t, comeback, "the load's enrolments work", func() bool { return l.got(http.StatusOK) >= before+8 })
		l.stop()
		if l.got(http.StatusServiceUnavailable) == 0 || len(l.open) > 0 {
			t.Errorf("answers while the token was away: %v, requests without an answer: %d", l.statuses, len(l.open))
		}
		if l.slowest > impatient {
			t.Errorf("a request took %s", l.slowest)
		}
		l.checkLedger()
	}
	h.back(t, lamp, "bulb-1") // the one use was not lost
	h.auditHolds()
}

// adminWhileTokenAway: what needs no key works, status says what is away.
func (h *home) adminWhileTokenAway(t *testing.T) {
	t.Helper()
	out, errs, err := h.try(nil, "status", "--home", h.dir)
	if err == nil || !strings.Contains(out, "token") || errs == "" {
		t.Errorf("status: %v\n%s%s", err, out, errs)
	}
	h.run("cert", "list", "--home", h.dir, "--limit", "1")
	h.run("policy", "show", "--home", h.dir)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestStartWithoutToken: a server that cannot sign does not start, and says why.
func TestStartWithoutToken(t *testing.T) {
	t.Parallel()
	h := initHome(t, shortDir(t))
	rename(t, h.path("tokens"), h.path("elsewhere"))
	if errs := h.fails("serve", "--home", h.dir, "--https", h.https, "--http", h.http, "--metrics", "off"); !strings.Contains(errs, "deviceca-issuing") && !strings.Contains(errs, h.path("tokens")) {
		t.Errorf("it does not say which token:\n%s", errs)
	}
	h.fails("cert", "list", "--home", h.dir)
	rename(t, h.path("elsewhere"), h.path("tokens"))
	rename(t, h.path("secrets", "issuing.pin"), h.path("pin"))
	if errs := h.fails("serve", "--home", h.dir); !strings.Contains(errs, "issuing.pin") {
		t.Errorf("it does not say which file:\n%s", errs)
	}
	rename(t, h.path("pin"), h.path("secrets", "issuing.pin"))
	h.start()
}

func TestRootTokenGone(t *testing.T) {
	t.Parallel()
	h := initHome(t, shortDir(t))
	root := h.tokenDir(t, "deviceca-root")
	away := filepath.Join(h.dir, "..", "root-token")
	rename(t, root, away)
	if err := os.Remove(h.path("secrets", "root.pin")); err != nil {
		t.Fatal(err)
	}
	h.start()
	cert, key := h.device(h.addDevice("lamp-1")).mustEnroll(t, "lamp-1")
	if a, err := h.owner(cert, key).reenroll(newCSR(t, key, "lamp-1")); err != nil || a.status != http.StatusOK {
		t.Errorf("re-enrolment: %d %q %v", a.status, a.body, err)
	}
	if status, _ := h.get("/crl/root.crl"); status != http.StatusOK {
		t.Errorf("root.crl: %d", status)
	}
	h.fails("ca", "crl", "root", "--home", h.dir)
	h.stop()
	h.start()
}

// tokenDir is the directory of the token with a label.
func (h *home) tokenDir(t *testing.T, label string) string {
	t.Helper()
	objects, err := filepath.Glob(h.path("tokens", "*", "token.object"))
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		raw, err := os.ReadFile(object)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(label)) {
			return filepath.Dir(object)
		}
	}
	t.Fatalf("no token %s in %q", label, objects)
	return ""
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := shortDir(t)
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatalf("this test needs root, to mount a small disk: %v", err)
	}
	h := initHome(t, disk)
	t.Cleanup(func() {
		h.stop()
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	h.start()
	group := h.addGroup("lamp-*", "1000000")
	lamp := h.device(h.addDevice("bulb-1", "--uses", "1000"))
	filler := filepath.Join(disk, "filler")
	for range 2 {
		l := startLoad(t, h, group, "lamp-"+time.Now().Format("150405.000"), 8)
		eventually(t, 20*time.Second, "some certificates", func() bool { return l.got(http.StatusOK) >= 20 })
		fill(t, filler)
		eventually(t, 20*time.Second, "every enrolment fails", func() bool { // small ones may find room for a while
			ok, failed := l.got(http.StatusOK), l.got(http.StatusServiceUnavailable)
			time.Sleep(500 * time.Millisecond)
			return l.got(http.StatusOK) == ok && l.got(http.StatusServiceUnavailable) > failed
		})
		h.away(t, lamp, "bulb-1", "database")
		h.staysRed(t, l)
		errs := h.fails("device", "add", "--home", h.dir, "--id", "bulb-2", "--level", "software")
		if !strings.Contains(errs, "database") || !strings.Contains(errs, "disk is full") || !strings.Contains(errs, "try again") {
			t.Errorf("device add says:\n%s", errs)
		}
		out, _, _ := h.try(nil, "status", "--home", h.dir)
		if !strings.Contains(out, "make room on the file system of "+h.dir) {
			t.Errorf("status says:\n%s", out)
		}
		h.run("cert", "list", "--home", h.dir, "--limit", "1") // reading works
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		eventually(t, comeback, "/readyz is green", func() bool { return h.readyz() == http.StatusOK })
		before := l.got(http.StatusOK)
		eventually(t, comeback, "the load's enrolments work", func() bool { return l.got(http.StatusOK) >= before+8 })
		l.stop()
		if l.slowest > impatient {
			t.Errorf("a request took %s", l.slowest)
		}
		l.checkLedger()
	}
	h.back(t, lamp, "bulb-1")
	h.auditHolds()
	h.kill() // what was half written on a full disk must not hurt the start
	h.start()
	h.auditHolds()
}

// staysRed demands that /readyz does not turn green between enrolments that find no room.
func (h *home) staysRed(t *testing.T, l *load) {
	t.Helper()
	failed := l.got(http.StatusServiceUnavailable)
	for range 20 {
		if status, _ := h.get("/readyz"); status != http.StatusServiceUnavailable {
			t.Fatalf("/readyz %d on a full disk", status)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if l.got(http.StatusServiceUnavailable) == failed {
		t.Error("no enrolment failed meanwhile")
	}
}

// fill writes until the disk is full.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
