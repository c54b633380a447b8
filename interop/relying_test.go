//go:build interop && long

package interop

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the table of docs/relying-parties/README.md anew")

// relyingTable is the page whose table this test makes.
const relyingTable = "../docs/relying-parties/README.md"

// party is software that verifies certificates.
type party struct {
	name string
	page string // below docs/relying-parties
	// open starts it over some files; the function that it returns shows it a device's certificate.
	open func(*testing.T, config) verifier
}

// verifier shows a device's certificate to a party, and reports whether that accepts it, with what it said.
type verifier func(d *fielded) (accepted bool, said string)

// config is what a party is configured with.
type config struct {
	dir     string   // of its own
	cas     string   // trust anchors and the CAs below, PEM
	lists   []string // files of CRLs, PEM; empty: no CRL is checked
	scoped  bool     // the lists are partitions
	deltas  bool     // deltas are among the lists
	ocsp    string   // URL of the responder to ask; "": not asked
	field   *field
	crlFile string // all lists in one file
}

// fielded is a device with a certificate of both purposes, for parties that are servers and for those that are clients.
type fielded struct {
	id, dir, serial string
}

func (d *fielded) chain() string { return filepath.Join(d.dir, "fullchain.pem") }
func (d *fielded) cert() string  { return filepath.Join(d.dir, "cert.pem") }
func (d *fielded) key() string   { return filepath.Join(d.dir, "key.pem") }

// field is a CA with its devices, in the states that the table asks about.
type field struct {
	*authority
	dir    string
	root   string // what parties trust, for ever
	server *fielded

	good, revoked, late          *fielded // late is revoked in the delta alone
	scopedGood, scopedRevoked    *fielded // their certificates name partitions
	quarantined, rotated, rolled *fielded
}

func newField(t *testing.T) *field {
	f := &field{authority: prepareAuthority(t, "--keys", "file"), dir: t.TempDir()}
	policy := filepath.Join(f.home, "policy.yaml")
	text := strings.Replace(read(t, policy), "  lamp: ", "  parted:\n    extends: gateway\n    status: {ocsp: true, crl: partition, freshest: true}\n\n  lamp: ", 1)
	text = strings.ReplaceAll(text, "profiles: [device, gateway, lamp]", "profiles: [device, gateway, lamp, parted]")
	text = strings.Replace(text, "outcomes:\n", "outcomes:\n\n  - name: strange\n    when: device.id.startsWith(\"strange\")\n    then: quarantine\n    profile: remediation\n", 1)
	if !strings.Contains(text, "lamp, parted]") {
		t.Fatal("the default policy has changed: no level software to add a profile to")
	}
	write(t, policy, text)
	// Complete lists by hand alone, so that a revocation is in the delta and not in them.
	f.start("DEVICECA_CRL_FULL_WITHIN=0")
	f.root = write(t, filepath.Join(f.dir, "root.crt"), read(t, filepath.Join(f.home, "root.crt")))
	f.server = f.enrollAt("server.internal", "software", "gateway")
	f.good, f.revoked, f.late = f.enrollAt("good.internal", "software", "gateway"), f.enrollAt("revoked.internal", "software", "gateway"), f.enrollAt("late.internal", "software", "gateway")
	f.scopedGood, f.scopedRevoked = f.enrollAt("good-2.internal", "software", "parted"), f.enrollAt("revoked-2.internal", "software", "parted")
	f.quarantined = f.enrollAt("strange.internal", "software", "gateway")
	f.revoke(f.revoked.serial, "keyCompromise")
	f.revoke(f.scopedRevoked.serial, "keyCompromise")
	f.deviceca("crl", "publish", "--home", f.home)
	// A server without its state makes complete lists anew, and deltas over these: what is revoked until now is in no delta.
	f.stop()
	if err := os.Remove(filepath.Join(f.home, "crl", "issuing-1.json")); err != nil {
		t.Fatal(err)
	}
	f.start("DEVICECA_CRL_FULL_WITHIN=0")
	f.pemList("/crl/issuing-1-delta.crl", f.file("delta.pem"))
	f.fetchTo("first")
	for _, name := range []string{"issuing-1/0", "issuing-1/1"} {
		f.pemList("/crl/"+name+".crl", f.file(strings.ReplaceAll(name, "/", "-")+".pem"))
	}
	f.revoke(f.late.serial, "keyCompromise")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		f.pemList("/crl/issuing-1-delta.crl", f.file("delta.pem"))
		if strings.Contains(strings.ToLower(run(t, "", "openssl", "crl", "-in", f.file("delta.pem"), "-noout", "-text")), f.late.serial) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the delta does not hold the last revocation")
		}
	}
	return f
}

func (f *field) file(name string) string { return filepath.Join(f.dir, name) }

// fetchTo keeps the lists as a relying party does.
func (f *field) fetchTo(name string) {
	f.t.Helper()
	f.deviceca("crl", "fetch", "--url", "http://"+f.http, "--roots", f.root, "--dir", f.file(name))
}

func (f *field) pemList(path, file string) {
	f.t.Helper()
	run(f.t, "", "openssl", "crl", "-inform", "DER", "-in", f.save(path, file+".der"), "-out", file)
}

// enrollAt gets a device a certificate that names it in DNS, as server and client.
func (f *field) enrollAt(id, level, profile string) *fielded {
	f.t.Helper()
	out := f.deviceca("device", "add", "--home", f.home, "--id", id, "--level", level, "--json")
	var g grant
	if err := json.Unmarshal([]byte(out), &g); err != nil {
		f.t.Fatal(err)
	}
	d := &fielded{id: id, dir: f.file(id)}
	f.t.Setenv("DEVICECA_SECRET", g.Secret)
	out = f.deviceca("enroll", "--protocol", "est", "--server", "https://"+f.https, "--roots", filepath.Join(f.home, "root.crt"), "--id", id,
		"--reference", g.Reference, "--label", profile, "--dns", id, "--dir", d.dir, "--json")
	var r struct{ Serial string }
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		f.t.Fatal(err)
	}
	d.serial = strings.ToLower(r.Serial)
	return d
}

// rotate makes the next generation of a CA and lets it issue at once.
func (f *field) rotate(role string) {
	f.t.Helper()
	if role != "root" {
		if _, _, err := try("", f.program, "ca", "rotate", role, "--now", "--home", f.home); err == nil {
			return
		}
	}
	f.deviceca("ca", "rotate", role, "--home", f.home)
}

// with makes a party's configuration.
func (f *field) with(name string, cas string, lists ...string) config {
	f.t.Helper()
	dir, err := os.MkdirTemp("", "dcrp") // readable for daemons that drop their user
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	c := config{dir: dir, cas: cas, lists: lists, field: f}
	var all string
	for _, l := range lists {
		all += read(f.t, l)
	}
	if len(lists) > 0 {
		c.crlFile = write(f.t, filepath.Join(dir, "crls.pem"), all)
	}
	return c
}

// shown is the configuration that a page shows in its code block marked "tested", with the paths of a test. Lines
// that name the lists are left out where there are none.
func (c config) shown(t *testing.T, page string, more ...string) string {
	t.Helper()
	text := read(t, filepath.Join(filepath.Dir(relyingTable), page))
	_, block, ok := strings.Cut(text, " tested\n")
	block, _, ok2 := strings.Cut(block, "\n```")
	if !ok || !ok2 {
		t.Fatalf("%s shows no configuration marked as tested", page)
	}
	var kept []string
	for line := range strings.SplitSeq(block, "\n") {
		if c.crlFile != "" || !strings.Contains(line, "crls.pem") {
			kept = append(kept, line)
		}
	}
	return strings.NewReplacer(append(more, "/etc/deviceca/cas.pem", c.cas, "/etc/deviceca/crls.pem", c.crlFile,
		"/etc/server/fullchain.pem", c.field.server.chain(), "/etc/server/key.pem", c.field.server.key())...).Replace(strings.Join(kept, "\n"))
}

// command runs the command line that a page shows.
func (c config) command(t *testing.T, page string, d *fielded, more ...string) (stdout, stderr string, err error) {
	t.Helper()
	return try("", "sh", "-c", c.shown(t, page, append(more, "device/fullchain.pem", d.chain(), "device/cert.pem", d.cert(), "\\\n", "")...))
}

// The table of docs/relying-parties/README.md: each cell is what the software did.
func TestRelyingParties(t *testing.T) {
	f := newField(t)
	rows := map[string][]string{}
	for _, p := range parties {
		t.Run(p.name, func(t *testing.T) { rows[p.name] = f.before(t, p) })
	}
	f.t = t
	f.rotate("issuing")
	f.rotated = f.enrollAt("rotated.internal", "software", "gateway")
	f.fetchTo("second")
	for _, p := range parties {
		t.Run(p.name+"/issuing rotated", func(t *testing.T) {
			rows[p.name] = append(rows[p.name], f.afterRotation(t, p, "first", "second", f.rotated))
		})
	}
	f.t = t
	f.rotate("root")
	f.rotate("issuing")
	f.rolled = f.enrollAt("rolled.internal", "software", "gateway")
	f.fetchTo("third")
	for _, p := range parties {
		t.Run(p.name+"/root rolled over", func(t *testing.T) {
			rows[p.name] = append(rows[p.name], f.afterRotation(t, p, "second", "third", f.rolled))
		})
	}
	f.t = t
	got := "| software | complete CRL | the root's CRL | partition | delta | OCSP | quarantine refused | issuing rotation survived | root roll-over survived |\n|" + strings.Repeat("---|", 9) + "\n"
	for _, p := range parties {
		got += "| [" + p.name + "](" + p.page + ") | " + strings.Join(rows[p.name], " | ") + " |\n"
	}
	const begin, end = "<!-- table -->\n", "<!-- end of table -->"
	page := read(t, relyingTable)
	head, rest, ok := strings.Cut(page, begin)
	committed, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", relyingTable)
	}
	if committed == got {
		return
	}
	if *update {
		write(t, relyingTable, head+begin+got+end+tail)
		return
	}
	t.Errorf("%s says otherwise than what happened; see what has changed, then write it anew with -update. It happened:\n%s", relyingTable, got)
}

// before fills the columns that need no rotation.
func (f *field) before(t *testing.T, p party) (cells []string) {
	f.t = t
	cas, issuing, root := f.file("first/cas.pem"), f.file("issuing-1.pem"), f.file("root-1.pem")
	for name, file := range map[string]string{"issuing-1": issuing, "root-1": root} {
		if _, err := os.Stat(file); err != nil {
			run(t, "", "openssl", "crl", "-inform", "DER", "-in", f.file("first/"+name+".crl"), "-out", file)
		}
	}
	complete := p.open(t, f.with("complete", cas, issuing, root))
	goodPasses := f.accepts(t, complete, f.good)
	cells = append(cells, verdict(goodPasses, f.accepts(t, complete, f.revoked), "yes"))
	if f.accepts(t, p.open(t, f.with("rootless", cas, issuing)), f.good) {
		cells = append(cells, "not needed")
	} else {
		cells = append(cells, "needed")
	}
	partition := "yes"
	zero, one := f.file("issuing-1-0.pem"), f.file("issuing-1-1.pem")
	for _, lists := range [][]string{{zero, one, root}, {one, zero, root}, {one, root}} { // the last lacks the device's
		c := f.with("partition", cas, lists...)
		c.scoped = true
		scoped := p.open(t, c)
		v := verdict(f.accepts(t, scoped, f.scopedGood), f.accepts(t, scoped, f.scopedRevoked), "yes")
		if v == passesRevoked || v != "yes" && len(lists) == 3 {
			partition = v
			break
		}
	}
	cells = append(cells, partition)
	c := f.with("delta", cas, issuing, f.file("delta.pem"), root)
	c.deltas = true
	delta := p.open(t, c)
	good, before, late := f.accepts(t, delta, f.good), f.accepts(t, delta, f.revoked), f.accepts(t, delta, f.late)
	switch {
	case good && before: // the delta alone counts
		cells = append(cells, passesRevoked)
	case good && late:
		cells = append(cells, "ignored")
	default:
		cells = append(cells, verdict(good, late, "yes"))
	}
	cells = append(cells, f.askOCSP(t, p, cas))
	// Without lists: that of the quarantine CA is missing on purpose, which would be reason enough for some.
	if f.accepts(t, p.open(t, f.with("quarantine", cas)), f.quarantined) {
		cells = append(cells, "**no**")
	} else {
		cells = append(cells, "yes")
	}
	return cells
}

const passesRevoked = "**passes revoked ones**"

// verdict puts in a word what a party did to a good and to a revoked certificate.
func verdict(good, revoked bool, yes string) string {
	switch {
	case good && !revoked:
		return yes
	case good:
		return passesRevoked
	case revoked:
		return "passes revoked ones alone"
	}
	return "refuses all"
}

func (f *field) askOCSP(t *testing.T, p party, cas string) string {
	c := f.with("ocsp", cas)
	c.ocsp = "http://" + f.http + "/ocsp"
	ask := p.open(t, c)
	if ask == nil {
		return "no"
	}
	good := f.accepts(t, ask, f.good)
	return verdict(good, f.accepts(t, ask, f.revoked) || f.accepts(t, ask, f.late), "yes")
}

// afterRotation says what it takes for a party to go on: nothing, the files fetched anew, or that it does not.
func (f *field) afterRotation(t *testing.T, p party, old, fresh string, d *fielded) string {
	f.t = t
	if f.accepts(t, p.open(t, f.with("old", f.file(old+"/cas.pem"), f.file(old+"/crls.pem"))), d) {
		return "unchecked until `crl fetch`" // there is no list of the new CA yet
	}
	again := p.open(t, f.with("fresh", f.file(fresh+"/cas.pem"), f.file(fresh+"/crls.pem")))
	switch {
	case f.accepts(t, again, d) && f.accepts(t, again, f.good) && !f.accepts(t, again, f.revoked):
		return "with `crl fetch`"
	case f.accepts(t, again, d):
		return "the new alone"
	}
	return "**no**"
}

// accepts shows a certificate, and logs what was said of it.
func (f *field) accepts(t *testing.T, show verifier, d *fielded) bool {
	t.Helper()
	if show == nil {
		return false
	}
	ok, said := show(d)
	if said = strings.TrimSpace(said); len(said) > 600 {
		said = said[len(said)-600:]
	}
	t.Logf("%s: accepted %v: %s", d.id, ok, said)
	return ok
}
