package stacktest

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// A server whose clock was ahead left lists that begin in the future. The next one makes them again, under higher numbers, and says
// so in its log and in its status; nothing turns red.
func TestClockWasAhead(t *testing.T) {
	h := newHome(t)
	file := h.path("crl", "issuing-1.json")
	list := h.path("crl", "issuing-1.crl")
	eventually(t, 20*time.Second, "the first CRL", func() bool { _, err := os.Stat(list); return err == nil })
	type shown struct {
		Number     string
		ThisUpdate time.Time `json:"this_update"`
	}
	show := func() (s shown) {
		t.Helper()
		if err := json.Unmarshal([]byte(h.run("crl", "show", list, "--json")), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	eventually(t, 20*time.Second, "the state file", func() bool { _, err := os.Stat(file); return err == nil })
	before := show()
	h.stop()

	// The state as a clock that is ahead by 20 years leaves it.
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	year := time.Now().UTC().Format("2006-")
	ahead := strings.ReplaceAll(string(raw), `"`+year, `"`+time.Now().UTC().AddDate(20, 0, 0).Format("2006-"))
	if ahead == string(raw) {
		t.Fatalf("no dates in %s", raw)
	}
	if err := os.WriteFile(file, []byte(ahead), 0o644); err != nil {
		t.Fatal(err)
	}
	h.start()
	eventually(t, 20*time.Second, "another CRL", func() bool { return show().Number != before.Number })
	if now := show(); now.ThisUpdate.After(time.Now()) || len(now.Number) < len(before.Number) || len(now.Number) == len(before.Number) && now.Number <= before.Number {
		t.Errorf("CRL %s of %s after %s", now.Number, now.ThisUpdate, before.Number)
	}
	var status struct{ Warnings []string }
	if err := json.Unmarshal([]byte(h.run("status", "--home", h.dir, "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if len(status.Warnings) != 1 || !strings.Contains(status.Warnings[0], "issuing-1") || !strings.Contains(h.log.String(), "CRLs begin in the future") {
		t.Errorf("status warns %q", status.Warnings)
	}
	if code, _ := h.get("/readyz"); code != 200 {
		t.Errorf("readyz %d", code)
	}
}

// Root CRLs, which the server cannot sign, are told of where they begin in the future, or end soon.
func TestRootCRLWarnings(t *testing.T) {
	h := newHome(t)
	if out := h.run("status", "--home", h.dir); strings.Contains(out, "CRL of") {
		t.Errorf("a new CA: %s", out)
	}
	h.stop()
	key := newKey(t)
	i := &intruder{t: t, path: h.path("ledger.db")}
	for root, from := range map[string]time.Time{"root-1": time.Now().AddDate(0, 0, -356), "quarantine-root-1": time.Now().AddDate(0, 0, 1)} {
		raw, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(2), ThisUpdate: from, NextUpdate: from.AddDate(1, 0, 0)},
			&x509.Certificate{Subject: pkix.Name{CommonName: root}, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign}, key)
		if err != nil {
			t.Fatal(err)
		}
		i.run(fmt.Sprintf("UPDATE setting SET value = X'%x' WHERE name = 'crl/%s'", raw, root))
	}
	h.start()
	var status struct{ Warnings []string }
	if err := json.Unmarshal([]byte(h.run("status", "--home", h.dir, "--json")), &status); err != nil {
		t.Fatal(err)
	}
	told := strings.Join(status.Warnings, "\n")
	if len(status.Warnings) != 2 || !strings.Contains(told, "the CRL of root-1 ends at") || !strings.Contains(told, "the CRL of quarantine-root-1 begins in the future") {
		t.Errorf("status warns %q", status.Warnings)
	}
}

// The root's CRL is asked for over and over by who checks whole paths: it answers If-None-Match.
func TestRootCRLUnchanged(t *testing.T) {
	h := newHome(t)
	ask := func(etag string) *http.Response {
		t.Helper()
		q, err := http.NewRequest("GET", "http://"+h.http+"/crl/root.crl", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("If-None-Match", etag)
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	first := ask("")
	etag := first.Header.Get("ETag")
	if first.StatusCode != 200 || etag == "" || first.ContentLength < 100 {
		t.Fatalf("%s, %v", first.Status, first.Header)
	}
	if again := ask(etag); again.StatusCode != 304 {
		t.Errorf("not modified: %s", again.Status)
	}
	h.run("ca", "crl", "root", "--home", h.dir)
	if other := ask(etag); other.StatusCode != 200 || other.Header.Get("ETag") == etag {
		t.Errorf("another list: %s", other.Status)
	}
}
