package stacktest

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/deviceca/deviceca/internal/keys"
)

type auditReport struct {
	Last, Certificates, Revocations, Signed uint64
	Fault                                   string
	Heads                                   []struct {
		File   string
		Own    bool
		Heads  uint64
		Newest uint64
	}
	NotChecked []string `json:"not_checked"`
}

// verifyAudit is audit verify, with the exit status that the report must have.
func (h *home) verifyAudit(t *testing.T, args ...string) (r auditReport) {
	t.Helper()
	out, errs, err := h.try(nil, append([]string{"audit", "verify", "--home", h.dir, "--json"}, args...)...)
	if jsonErr := json.Unmarshal([]byte(out), &r); jsonErr != nil {
		t.Fatalf("audit verify printed %q: %v\n%s", out, err, errs)
	}
	exit, _ := errors.AsType[*exec.ExitError](err)
	if failed := exit != nil && exit.ExitCode() == 1; failed != (r.Fault != "") || err != nil && exit == nil || failed && !strings.Contains(errs, r.Fault) {
		t.Errorf("audit verify: fault %q, %v\n%s", r.Fault, err, errs)
	}
	return r
}

// intruder has the database of a home, and nothing else of it.
type intruder struct {
	t    *testing.T
	path string
	copy []byte
}

func (i *intruder) run(statements string) {
	i.t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: i.path}).String())
	if err != nil {
		i.t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for statement := range strings.SplitSeq(statements, ";") {
		if statement = strings.TrimSpace(statement); statement == "" {
			continue
		}
		result, err := db.Exec(statement)
		if err != nil {
			i.t.Fatalf("%s: %v", statement, err)
		}
		if n, _ := result.RowsAffected(); n == 0 && !strings.HasPrefix(statement, "CREATE") {
			i.t.Fatalf("%s: changes nothing", statement)
		}
	}
}

// undo puts the database back.
func (i *intruder) undo() {
	i.t.Helper()
	for _, suffix := range []string{"-wal", "-shm"} {
		os.Remove(i.path + suffix)
	}
	if err := os.WriteFile(i.path, i.copy, 0o600); err != nil {
		i.t.Fatal(err)
	}
}

// TestAuditTamper: whoever can write to the database, and has not the token, is found out.
func TestAuditTamper(t *testing.T) {
	t.Parallel()
	h := newHome(t, "DEVICECA_AUDIT_CHECKPOINT_EVERY=1s")
	serials := map[string]string{}
	enrol := func(id string) {
		cert, _ := h.device(h.addDevice(id)).mustEnroll(t, id)
		serials[id] = serialOf(cert)
	}
	heads := func() (n int) {
		raw, _ := os.ReadFile(h.path("audit-heads.log"))
		return strings.Count(string(raw), "\n")
	}
	for _, id := range []string{"good", "lost", "held", "released"} {
		enrol(id)
	}
	eventually(t, impatient, "a signed head", func() bool { return heads() > 0 })
	h.run("cert", "revoke", serials["lost"], "--reason", "keyCompromise", "--home", h.dir)
	h.run("cert", "revoke", serials["held"], "--reason", "certificateHold", "--home", h.dir)
	h.run("cert", "revoke", serials["released"], "--reason", "certificateHold", "--home", h.dir)
	h.run("cert", "release", serials["released"], "--home", h.dir)
	enrol("retired")
	h.run("device", "retire", "retired", "--home", h.dir)
	before := heads()
	enrol("late")
	eventually(t, impatient, "a newer head", func() bool { return heads() > before })
	if r := h.verifyAudit(t); r.Fault != "" || r.Certificates < 6 || r.Revocations != 4 { // while serving; the hold that was released has no line any more
		t.Errorf("before: %+v", r)
	}
	h.stop()

	elsewhere := filepath.Join(shortDir(t), "heads")
	raw, err := os.ReadFile(h.path("audit-heads.log"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, elsewhere, string(raw))
	r := h.verifyAudit(t, "--head", elsewhere)
	if r.Fault != "" || len(r.Heads) != 2 || !r.Heads[0].Own || r.Heads[1].Heads != uint64(heads()) || r.Heads[1].Newest != r.Signed {
		t.Errorf("with heads: %+v", r)
	}
	if text := h.run("audit", "verify", "--home", h.dir); !strings.Contains(text, "not checked") || !strings.Contains(text, "--head") {
		t.Errorf("it does not say what it could not check:\n%s", text)
	}

	ledger, err := os.ReadFile(h.path("ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	i := &intruder{t, h.path("ledger.db"), ledger}
	of := func(id string) string { return "(SELECT id FROM certificate WHERE serial = X'" + serials[id] + "')" }
	copyCertificate := func(serial string) string {
		return "INSERT INTO certificate (serial, issuer, device, key_id, profile, level, protocol, requester, actor, issued, not_before, not_after, request, decision, input, der, no_status) " +
			"SELECT X'" + serial + "', issuer, device, key_id, profile, level, protocol, requester, actor, issued, not_before, not_after, request, decision, input, der, no_status FROM certificate WHERE id = " + of("good")
	}
	for name, c := range map[string]struct{ sql, want string }{
		"events dropped":                {"DELETE FROM audit_event WHERE id < (SELECT first FROM audit_entry WHERE sequence = 6); UPDATE audit_head SET dropped = 5", "no signed checkpoint says that they were dropped"},
		"entries dropped":               {"DELETE FROM audit_event WHERE id < (SELECT first FROM audit_entry WHERE sequence = 6); DELETE FROM audit_entry WHERE sequence < 6; UPDATE audit_head SET dropped = 5", "the entries before are gone"},
		"dropped, said by a checkpoint": {"DELETE FROM audit_event WHERE id < (SELECT first FROM audit_entry WHERE sequence = 3); UPDATE audit_checkpoint SET dropped = 2", "the signature of the checkpoint is wrong"},
		"an event's kind":               {"UPDATE audit_event SET kind = 'device.added' WHERE kind = 'certificate.revoked'", "is found as one of kind device.added"},
		"an event's device":             {"UPDATE audit_event SET device = 'other' WHERE device = 'lost' AND kind = 'certificate.issued'", `is found as one of kind certificate.issued about "other"`},
		"an event's body":               {"UPDATE audit_event SET body = replace(body, 'keyCompromise', 'superseded000') WHERE kind = 'certificate.revoked'", "an event was changed"},
		"revocation deleted":            {"DELETE FROM revocation WHERE certificate = " + of("lost"), "certificate " + serials["lost"] + " was revoked (keyCompromise)"},
		"revocation made a hold":        {"UPDATE revocation SET reason = 6 WHERE certificate = " + of("lost"), "was revoked (keyCompromise)"},
		"revocation put off":            {"UPDATE revocation SET revoked = revoked + 1000000 WHERE certificate = " + of("lost"), "was revoked (keyCompromise)"},
		"invalid since long ago":        {"UPDATE revocation SET invalid = 0 WHERE certificate = " + of("lost"), "and the ledger has revoked (keyCompromise)"},
		"revocation hidden":             {"UPDATE revocation SET no_status = 1 WHERE certificate = " + of("lost"), "the revocation of certificate " + serials["lost"] + " is not of that certificate"},
		"revocation expired":            {"UPDATE revocation SET not_after = 1 WHERE certificate = " + of("lost"), "is not of that certificate"},
		"revocation of another":         {"UPDATE revocation SET certificate = " + of("late") + " WHERE certificate = " + of("lost"), "is not of that certificate"},
		"retired device's certificate":  {"DELETE FROM revocation WHERE certificate = " + of("retired"), "certificate " + serials["retired"] + " was revoked (cessationOfOperation)"},
		"hold deleted":                  {"DELETE FROM revocation WHERE certificate = " + of("held"), "certificate " + serials["held"] + " was revoked (certificateHold)"},
		"release deleted":               {"DELETE FROM release WHERE certificate = " + of("released"), "was released from hold"},
		"revocation slipped in":         {"INSERT INTO revocation SELECT 1 + (SELECT max(sequence) FROM revocation), id, issuer, serial, not_after, issued, 1, NULL, 0 FROM certificate WHERE id = " + of("good") + "; UPDATE counter SET value = value + 1 WHERE name = 'revocation'", "the ledger has certificate " + serials["good"] + " as revoked (keyCompromise)"},
		"certificate deleted":           {"DELETE FROM certificate WHERE id = " + of("good"), "certificate " + serials["good"] + " was issued to device \"good\""},
		"newest certificate deleted":    {"DELETE FROM certificate WHERE id = " + of("late"), "there is no record of it"},
		"certificate slipped in":        {copyCertificate("01ffffffffffff000000000000000000000000"), "certificate 01ffffffffffff000000000000000000000000 of device \"good\" is in the ledger, and the log does not know of its issuance"},
		"certificate exchanged":         {"UPDATE certificate SET der = (SELECT der FROM certificate WHERE id = " + of("late") + ") WHERE id = " + of("good"), "certificate " + serials["good"] + " of device \"good\" is another one than was issued"},
		"certificate of another device": {"UPDATE certificate SET device = (SELECT id FROM device WHERE folded = 'late') WHERE id = " + of("good"), "was issued by issuing-1 to device \"good\", and the ledger says by issuing-1 to \"late\""},
		"certificate without status":    {"UPDATE certificate SET no_status = 1 WHERE id = " + of("good"), "noRevAvail"},
		"certificate that does not end": {"UPDATE certificate SET not_after = not_after * 2 WHERE id = " + of("good"), "its end is another"},
		"certificate of another's key":  {"UPDATE certificate SET key_id = (SELECT key_id FROM certificate WHERE id = " + of("late") + ") WHERE id = " + of("good"), "its key is another"},
		"CA's certificate exchanged":    {"UPDATE issuer SET cert = (SELECT cert FROM issuer WHERE name = 'issuing-1') WHERE name = 'root-1'", "the certificate of CA root-1 is another one than was entered"},
	} {
		i.run(c.sql)
		if r := h.verifyAudit(t); !strings.Contains(r.Fault, c.want) {
			t.Errorf("%s: fault %q, want %q", name, r.Fault, c.want)
		}
		i.undo()
	}

	// Without its checkpoints the log proves nothing, and the heads tell that there were some.
	const deleted = "checkpoints were deleted: the head of "
	for name, sql := range map[string]string{"all": "DELETE FROM audit_checkpoint", "the newest": "DELETE FROM audit_checkpoint WHERE sequence = (SELECT max(sequence) FROM audit_checkpoint)"} {
		i.run(sql)
		if r := h.verifyAudit(t); !strings.Contains(r.Fault, deleted) {
			t.Errorf("%s checkpoints deleted: fault %q", name, r.Fault)
		}
		if r := h.verifyAudit(t, "--head", elsewhere); !strings.Contains(r.Fault, deleted) {
			t.Errorf("%s checkpoints deleted, with heads from elsewhere: fault %q", name, r.Fault)
		}
		i.undo()
	}

	// A server that starts on such a ledger says so.
	i.run("DELETE FROM audit_checkpoint")
	h.start()
	eventually(t, impatient, "an error in the log", func() bool {
		return strings.Contains(h.log.String(), "the audit log is not the one whose heads were signed") && strings.Contains(h.log.String(), deleted)
	})
	h.stop()
	i.undo()
	write(t, h.path("audit-heads.log"), string(raw))

	// The log cut off behind an older checkpoint, with all that it told of: everything agrees but the heads.
	const cut = "(SELECT min(sequence) FROM audit_checkpoint)"
	const event = "(SELECT first FROM audit_entry WHERE sequence = 1 + " + cut + ")"
	i.run(`CREATE TABLE keep AS SELECT previous, first FROM audit_entry WHERE sequence = 1 + ` + cut + `;
		UPDATE audit_head SET sequence = ` + cut + `, hash = (SELECT previous FROM keep), event = (SELECT first FROM keep) - 1;
		CREATE TABLE gone AS SELECT id FROM certificate WHERE instr((SELECT group_concat(body) FROM audit_event WHERE id < ` + event + `), lower(hex(serial))) = 0;
		DELETE FROM revocation; DELETE FROM release; UPDATE counter SET value = 0 WHERE name = 'revocation';
		DELETE FROM certificate WHERE id IN (SELECT id FROM gone);
		DELETE FROM audit_event WHERE id >= ` + event + `;
		DELETE FROM audit_checkpoint WHERE sequence > ` + cut + `;
		DELETE FROM audit_entry WHERE sequence > (SELECT sequence FROM audit_head);
		CREATE VIEW done AS SELECT 1`)
	const truncated = "the audit log was truncated: the head of "
	if r := h.verifyAudit(t); !strings.Contains(r.Fault, truncated) {
		t.Errorf("cut off: fault %q", r.Fault)
	}
	if err := os.Remove(h.path("audit-heads.log")); err != nil {
		t.Fatal(err)
	}
	if r := h.verifyAudit(t); r.Fault != "" || len(r.NotChecked) == 0 || !strings.Contains(r.NotChecked[0], "whether the log was cut off") {
		t.Errorf("cut off, without heads: %+v", r)
	}
	r = h.verifyAudit(t, "--head", elsewhere)
	if !strings.Contains(r.Fault, truncated) || !strings.Contains(r.Fault, "is not in the log") || !strings.Contains(r.Fault, elsewhere) {
		t.Errorf("cut off, with heads from elsewhere: fault %q", r.Fault)
	}
	// What happens from then on is another log.
	h.start()
	for n := range 30 {
		h.addDevice(fmt.Sprintf("after-%d", n))
	}
	if r := h.verifyAudit(t, "--head", elsewhere); !strings.Contains(r.Fault, "the audit log was rewritten: the head of ") {
		t.Errorf("rewritten: fault %q", r.Fault)
	}
	h.stop()
	i.undo()
	if err := os.Remove(h.path("audit-heads.log")); err != nil {
		t.Error(err)
	}
	if r := h.verifyAudit(t, "--head", elsewhere); r.Fault != "" {
		t.Errorf("put back: fault %q", r.Fault)
	}
	empty := filepath.Join(filepath.Dir(elsewhere), "empty")
	write(t, empty, "no heads\n")
	h.fails("audit", "verify", "--home", h.dir, "--head", empty)
	h.fails("audit", "verify", "--home", h.dir, "--head", empty+".none")
}

// token runs pkcs11-tool on the issuing token of a home, whose tokens lie in dir.
func (h *home) token(t *testing.T, dir string, args ...string) string {
	t.Helper()
	conf := filepath.Join(shortDir(t), "conf")
	write(t, conf, "directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	pin, err := os.ReadFile(h.path("secrets", "issuing.pin"))
	if err != nil {
		t.Fatal(err)
	}
	module, err := keys.FindModule()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("pkcs11-tool", append([]string{"--module", module, "--token-label", "deviceca-issuing", "--login", "--pin", strings.TrimSpace(string(pin))}, args...)...)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+conf)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("pkcs11-tool %v: %v\n%s", args, err, out)
	}
	return string(out)
}

const swappedOut = "5a5a"

// swapIn puts another key in the place of one on the issuing token, under its CKA_ID, and returns that.
func (h *home) swapIn(t *testing.T, dir, label string) (id string) {
	t.Helper()
	for object := range strings.SplitSeq(h.token(t, dir, "--list-objects", "--type", "privkey"), "Private Key Object") {
		if strings.Contains(object, "label:      "+label+"\n") {
			_, after, _ := strings.Cut(object, "ID:")
			id = strings.Fields(after)[0]
		}
	}
	if id == "" {
		t.Fatalf("no key %s", label)
	}
	for _, kind := range []string{"privkey", "pubkey"} {
		h.token(t, dir, "--type", kind, "--id", id, "--set-id", swappedOut)
	}
	h.token(t, dir, "--keypairgen", "--key-type", "EC:prime256v1", "--id", id, "--label", "another")
	return id
}

func (h *home) swapOut(t *testing.T, dir, id string) {
	t.Helper()
	for _, kind := range []string{"privkey", "pubkey"} {
		h.token(t, dir, "--delete-object", "--type", kind, "--id", id)
		h.token(t, dir, "--type", kind, "--id", swappedOut, "--set-id", id)
	}
}

// TestKeySwapped: a CA key that is replaced on the token signs nothing, and that shows.
func TestKeySwapped(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	lamp := h.device(h.addDevice("bulb-1", "--uses", "100"))
	lamp.mustEnroll(t, "bulb-1")
	issued := len(h.ledger().certs)
	rename(t, h.path("tokens"), h.path("elsewhere"))
	eventually(t, impatient, "/readyz is red", func() bool { return h.readyz() == http.StatusServiceUnavailable })
	id := h.swapIn(t, h.path("elsewhere"), "issuing-1")
	rename(t, h.path("elsewhere"), h.path("tokens"))
	said := func() bool {
		return strings.Contains(h.log.String(), "a key on the token is not the key that was loaded")
	}
	eventually(t, impatient, "the server says so", func() bool { h.readyz(); return said() })
	h.away(t, lamp, "bulb-1", "token")
	if out, _, err := h.try(nil, "status", "--home", h.dir); err == nil || !strings.Contains(out, "issuing-1") {
		t.Errorf("status does not name the key: %v\n%s", err, out)
	}
	if n := len(h.ledger().certs); n != issued {
		t.Errorf("%d certificates, and there were %d", n, issued)
	}
	h.swapOut(t, h.path("tokens"), id)
	h.back(t, lamp, "bulb-1")
	h.auditHolds()
}

// TestAuditKeySwapped: a server that finds another audit key at its start signs no head with it.
func TestAuditKeySwapped(t *testing.T) {
	t.Parallel()
	h := newHome(t, "DEVICECA_AUDIT_CHECKPOINT_EVERY=1s")
	h.addDevice("lamp-1")
	h.stop()
	before := h.verifyAudit(t)
	whole := filepath.Join(shortDir(t), "tokens")
	if err := os.CopyFS(whole, os.DirFS(h.path("tokens"))); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"privkey", "pubkey"} {
		h.token(t, h.path("tokens"), "--delete-object", "--type", kind, "--label", "audit")
	}
	h.token(t, h.path("tokens"), "--keypairgen", "--key-type", "EC:prime256v1", "--id", "5a", "--label", "audit")
	h.launch()
	eventually(t, impatient, "/readyz is red", func() bool { return h.readyz() == http.StatusServiceUnavailable })
	h.addDevice("lamp-2")
	eventually(t, impatient, "no head is signed, and the log says so", func() bool { return strings.Contains(h.log.String(), "the audit log's head could not be signed") })
	if r := h.verifyAudit(t); !strings.Contains(r.Fault, "is not the audit key that signed before") {
		t.Errorf("fault %q", r.Fault)
	}
	h.stop()
	// A home of before the key was kept knows it by the newest checkpoint.
	raw, err := os.ReadFile(h.path("ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	i := &intruder{t, h.path("ledger.db"), raw}
	const forget = "DELETE FROM setting WHERE name = 'audit.key'"
	i.run(forget)
	if r := h.verifyAudit(t); !strings.Contains(r.Fault, "is not the audit key that signed before") {
		t.Errorf("an old home: fault %q", r.Fault)
	}
	if err := os.RemoveAll(h.path("tokens")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(h.path("tokens"), os.DirFS(whole)); err != nil {
		t.Fatal(err)
	}
	if r := h.verifyAudit(t); r.Fault != "" || r.Signed != before.Signed || r.Last <= before.Last {
		t.Errorf("put back: %+v, before: %+v", r, before)
	}
	i.run(forget) // it was kept again
	h.start()
	eventually(t, impatient, "a head is signed again", func() bool { return h.verifyAudit(t).Signed > before.Signed })
}
