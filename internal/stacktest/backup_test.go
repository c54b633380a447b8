package stacktest

import (
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// index is the issuance index in a serial.
func index(t *testing.T, serial string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(serial[2:14], 16, 64)
	if err != nil || len(serial) != 38 {
		t.Fatalf("serial %q: %v", serial, err)
	}
	return n
}

type explanation struct {
	Decision decision
	Stored   decision
	Trace    []step
}

type decision struct{ Outcome, Rule, Profile, Policy string }

type step struct {
	Rule    string
	Matched bool
}

func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	group := h.addGroup("lamp-*", "1000000")
	old, oldKey := h.device(h.addDevice("bulb-1")).mustEnroll(t, "bulb-1")
	unspent := h.addDevice("bulb-2")
	h.run("device", "suspend", "bulb-2", "--home", h.dir)
	l := startLoad(t, h, group, "lamp", 8)
	eventually(t, 20*time.Second, "some certificates", func() bool { return l.got(http.StatusOK) >= 30 })
	dir := filepath.Join(h.dir, "..", "backup")
	before := maps.Clone(h.ledger().certs)
	h.run("backup", dir, "--home", h.dir)
	during := l.got(http.StatusOK)
	eventually(t, 20*time.Second, "certificates after the backup", func() bool { return l.got(http.StatusOK) >= during+20 })
	l.stop()
	all := l.checkLedger()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the backup directory: %v %v", info.Mode(), err)
	}
	h.fails("backup", dir, "--home", h.dir) // never over another
	h.kill()

	r := atHome(t, filepath.Join(shortDir(t), "ca"))
	r.run("restore", "--home", r.dir, "--from", dir)
	r.fails("restore", "--home", r.dir, "--from", dir) // never over a CA
	r.fails("status", "--home", r.dir)                 // it is closed
	r.run("recover", "--home", r.dir, "--acknowledge", "the certificates lost stay good")
	r.start()
	have := r.ledger()
	for serial := range before {
		if _, ok := have.certs[serial]; !ok {
			t.Errorf("%s was there before the backup and is gone", serial)
		}
	}
	for serial := range have.certs {
		if _, ok := all.certs[serial]; !ok {
			t.Errorf("%s was never issued", serial)
		}
	}
	if len(have.certs) >= len(all.certs) {
		t.Error("nothing was issued after the backup, so this test shows nothing")
	}
	if have.used[group.Reference] != have.by(group.Reference) {
		t.Errorf("%d uses, %d certificates", have.used[group.Reference], have.by(group.Reference))
	}

	a, err := r.owner(old, oldKey).reenroll(newCSR(t, newKey(t), "bulb-1"))
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("re-enrolment after the restore: %d %q %v", a.status, a.body, err)
	}
	highest := slices.Max(slices.Collect(maps.Keys(all.certs)))
	if got := index(t, a.serial()); got < index(t, highest)+1<<23 || got < 1<<24 {
		t.Errorf("the first index after the restore is %d, the highest before was %d", got, index(t, highest))
	}
	a, err = r.device(unspent).enroll(newCSR(t, newKey(t), "bulb-2"))
	if err != nil || a.status != http.StatusForbidden {
		t.Errorf("the suspended device: %d %q %v", a.status, a.body, err)
	}
	r.run("device", "resume", "bulb-2", "--home", r.dir)
	r.device(unspent).mustEnroll(t, "bulb-2") // its sealed secret opens
	r.auditHolds()
	if out := r.run("audit", "list", "--home", r.dir); !strings.Contains(out, "backup of ") || !strings.Contains(out, "next index") {
		t.Error("the audit log does not tell of the restore")
	}
	x := read[explanation](r, "policy", "explain", serialOf(old))
	if x.Stored.Outcome != "issue" || x.Decision != x.Stored {
		t.Errorf("policy explain: %+v", x)
	}
	if !slices.ContainsFunc(x.Trace, func(s step) bool { return s.Matched && strings.HasSuffix(s.Rule, x.Decision.Rule) }) {
		t.Errorf("policy explain: %+v", x)
	}
	// The root's token came along.
	r.run("ca", "crl", "root", "--home", r.dir)
}

func TestDamagedBackup(t *testing.T) {
	t.Parallel()
	h := initHome(t, shortDir(t))
	h.addDevice("lamp-1")
	dir := filepath.Join(h.dir, "..", "backup")
	h.run("backup", dir, "--home", h.dir) // without a server
	token, err := filepath.Rel(h.dir, filepath.Join(h.tokenDir(t, "deviceca-issuing"), "token.object"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"ledger.db", "policy.yaml", "deviceca.yaml", filepath.Join("secrets", "sealing.key"), token, "backup.json"} {
		for _, damage := range []struct {
			name string
			do   func([]byte) []byte
		}{
			{"one octet changed", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
			{"cut off", func(b []byte) []byte { return b[:len(b)/2] }},
			{"missing", nil},
		} {
			t.Run(filepath.Base(file)+" "+damage.name, func(t *testing.T) {
				copied := filepath.Join(shortDir(t), "b")
				if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(copied, file)
				raw, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if damage.do != nil {
					write(t, path, string(damage.do(raw)))
				}
				home := filepath.Join(copied, "..", "ca")
				_, errs, err := h.try(nil, "restore", "--home", home, "--from", copied)
				if err == nil || !strings.Contains(errs, filepath.Base(file)) && file != "backup.json" {
					t.Errorf("restore: %v\n%s", err, errs)
				}
				if _, err := os.Stat(home); err == nil {
					t.Error("a home was left behind")
				}
			})
		}
	}
}
