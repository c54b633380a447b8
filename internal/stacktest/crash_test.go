package stacktest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	group := h.addGroup("lamp-*", "1000000")
	all, open := map[string]string{}, 0
	for round := range 3 {
		l := startLoad(t, h, group, fmt.Sprintf("lamp-%d", round), 8)
		eventually(t, 20*time.Second, "some certificates", func() bool { return l.got(http.StatusOK) >= 20 })
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		h.kill()
		l.stop()
		took := h.start()
		have := l.checkLedger()
		t.Logf("round %d: %d received, %d requests without an answer, ready again after %s", round, len(l.received), len(l.open), took.Round(time.Millisecond))
		open += len(l.open)
		if took > 10*time.Second {
			t.Errorf("the restart took %s", took)
		}
		for serial, id := range l.received {
			if before, twice := all[serial]; twice {
				t.Errorf("serial %s came to %s and, after a crash, to %s", serial, before, id)
			}
			all[serial] = id
		}
		l.again(have)
		h.auditHolds()
	}
	if open == 0 {
		t.Error("the server was never killed under load: each request was answered")
	}
	have := h.ledger()
	if used := have.used[group.Reference]; used != have.by(group.Reference) {
		t.Errorf("%d uses for %d certificates", used, have.by(group.Reference))
	}
	for serial, id := range all {
		if have.certs[serial].Device != id {
			t.Errorf("%s of %s is gone", serial, id)
		}
	}
}

// again asks again for what was never answered. A certificate that was made
// before the crash is handed out; none is made twice.
func (l *load) again(have ledger) {
	l.t.Helper()
	made := map[string]string{}
	for serial, c := range have.certs {
		made[c.Device] = serial
	}
	d := l.h.device(l.group)
	for _, p := range l.open {
		a, err := d.enroll(p.csr)
		if err != nil || a.status != http.StatusOK {
			l.t.Fatalf("%s asks again and gets %d %q %v", p.id, a.status, a.body, err)
		}
		if before := made[p.id]; before != "" && before != a.serial() {
			l.t.Errorf("%s got %s, though %s was made for the same request", p.id, a.serial(), before)
		}
	}
}

type importCounts struct{ Read, Added, There, Failed int }

// devices is the inventory: how often each ID is there.
func (h *home) devices() map[string]int {
	ids := map[string]int{}
	for _, d := range read[[]struct{ ID string }](h, "device", "list") {
		ids[d.ID]++
	}
	return ids
}

func TestImportKilled(t *testing.T) {
	t.Parallel()
	const count = 10_000
	want := map[string]int{}
	csv := bytes.NewBufferString("id,level\n")
	for i := range count {
		id := fmt.Sprintf("meter-of-a-long-name-%05d", i)
		want[id] = 1
		fmt.Fprintf(csv, "%s,software\n", id)
	}
	for _, c := range []struct {
		name    string
		serving bool
	}{{"the server", true}, {"the command, without a server", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := initHome(t, shortDir(t))
			file := filepath.Join(h.dir, "..", "devices.csv")
			write(t, file, csv.String())
			if c.serving {
				h.start()
			}
			there := 0
			for round := range 3 {
				// A pipe that stays open holds the import in its middle. It takes more
				// than it can hold, so that the command is at work once all is written.
				cmd := exec.Command(program, "device", "import", "-", "--home", h.dir)
				var errs bytes.Buffer
				cmd.Stderr = &errs
				in, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				part := csv.Bytes()[:csv.Len()*(round+1)/4]
				wrote := make(chan struct{})
				go func() { io.Copy(in, bytes.NewReader(part)); close(wrote) }()
				<-wrote
				time.Sleep(time.Duration(round*300+rand.IntN(200)) * time.Millisecond)
				if c.serving {
					h.kill()
					in.Close()
					if err := cmd.Wait(); err == nil {
						t.Error("the import whose server was killed says that it is done")
					}
					if !strings.Contains(errs.String(), "read, ") {
						t.Errorf("the import that broke off does not say how far it came:\n%s", errs.String())
					}
					h.start()
				} else {
					cmd.Process.Kill()
					cmd.Wait()
				}
				have := h.devices()
				for id, n := range have {
					if n != 1 || want[id] != 1 {
						t.Errorf("device %q is there %d times", id, n)
					}
				}
				if len(have) < there {
					t.Errorf("%d devices after round %d, %d before", len(have), round, there)
				}
				there = len(have)
				t.Logf("killed in the middle: %d devices of the %d sent", there, bytes.Count(part, []byte("\n"))-1)
			}
			if there == 0 {
				t.Error("nothing was entered before the kills, so this test shows nothing")
			}
			counts := read[importCounts](h, "device", "import", file)
			if counts != (importCounts{Read: count, Added: count - there, There: there}) {
				t.Errorf("resumed: %+v with %d there before", counts, there)
			}
			if have := h.devices(); !maps.Equal(have, want) {
				t.Errorf("%d devices in the end", len(have))
			}
			h.auditHolds()
		})
	}
}

// TestInitKilled interrupts init at any moment: what it leaves behind is either
// a CA or none, and says which.
func TestInitKilled(t *testing.T) {
	t.Parallel()
	for i := range 5 {
		h := atHome(t, filepath.Join(shortDir(t), "ca"))
		cmd := exec.Command(program, "init", "--home", h.dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(40*i+10) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if _, err := os.Stat(h.path("deviceca.yaml")); err == nil {
			h.start()
			h.device(h.addDevice("lamp-1")).mustEnroll(t, "lamp-1")
			h.stop()
			continue
		}
		h.fails("cert", "list", "--home", h.dir)
		if _, err := os.Stat(h.path("init.json")); err == nil {
			h.fails("init", "--home", h.dir) // it must be told that it goes on
		}
		h.run("init", "--home", h.dir, "--resume")
		h.run("device", "add", "--home", h.dir, "--id", "lamp-1", "--level", "software")
	}
}
