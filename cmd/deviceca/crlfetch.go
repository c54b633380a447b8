package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/internal/path"
)

func (a *app) crlFetch() *cobra.Command {
	f := crlFetcher{now: a.now, etags: map[string]string{}, ages: map[string]time.Duration{}}
	var rootsFile string
	var watch bool
	cmd := withJSON(&cobra.Command{
		Use:   "fetch --dir DIR [--url URL --roots PEM] [--watch] [--then CMD]",
		Short: "Keep the complete CRLs in files, for programs that read files",
		Long: `Fetch the complete CRLs of the root and of every issuing CA that is in use, verify them, and keep
them in files for programs that read files. All of them: a rotation brings a list more, by itself.

  DIR/crls.pem      all lists in one file: nginx ssl_crl, HAProxy crl-file, mosquitto crlfile, curl --crlfile
  DIR/cas.pem       the certificates of these CAs: ssl_client_certificate, ca-file, cafile, --cacert
  DIR/hashed/       lists and certificates as openssl rehash names them: FreeRADIUS ca_path, openssl -CApath
  DIR/NAME.crl      each list by itself, DER; DIR/NAME.crt the certificate, PEM

A list is written only if a CA below --roots signed it, it is current, and its number is above that of the one
in DIR. Files are replaced at once whole. While the server is away, they stay as they are. The list of a CA that the server no longer
names stays until the CA's end. Devices that are set apart (quarantine) are none of a relying party's business: their CA is left out.

On the CA's host, --url and --roots are those of the home. With --watch it stays, fetches anew as often as the server lets caches keep a list (a
minute, unless crl.max_age says otherwise), and runs --then after each change.`,
		Example: `  deviceca crl fetch --url http://ca.example:8080 --roots root.crt --dir /etc/nginx/crls
  deviceca crl fetch --url http://ca.example:8080 --roots root.crt --dir /etc/nginx/crls --watch --then 'nginx -s reload'`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "dir"); err != nil {
				return err
			}
			if err := f.find(a, cmd, rootsFile); err != nil {
				return err
			}
			o := a.output(cmd)
			if watch {
				return f.watch(cmd.Context(), o)
			}
			report, err := f.fetch(cmd.Context())
			if err != nil {
				return err
			}
			if err := o.fetchedLists(report); err != nil {
				return err
			}
			if len(report.Faults) > 0 {
				return errReported
			}
			return nil
		},
	})
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", "", "directory for the files; made if missing")
	flags.StringVar(&f.base, "url", "", "base URL of the CA's publications (default: that of the home)")
	flags.StringVar(&rootsFile, "roots", "", "trust anchors, PEM (default: root.crt of the home)")
	cmd.PersistentFlags().String("home", "", "home directory of the CA (default $DEVICECA_HOME or "+defaultHome+")")
	flags.BoolVar(&watch, "watch", false, "stay, and keep the files current")
	flags.StringVar(&f.then, "then", "", "shell command to run after each change")
	return cmd
}

// crlFetcher keeps the files of one CA's relying party.
type crlFetcher struct {
	base    string
	dir     string
	then    string
	anchors []*x509.Certificate
	now     func() time.Time
	etags   map[string]string        // by URL, of what is in dir
	ages    map[string]time.Duration // by URL: how long HTTP lets caches keep it
	owed    bool                     // then has not run since the last change, or failed
}

// fetchReport is what one fetch found.
type fetchReport struct {
	Dir     string        `json:"dir"`
	Changed bool          `json:"changed"`
	Lists   []fetchedList `json:"lists"`
	// Missing are the roots whose CRL is not here: those that are external.
	Missing []string `json:"missing,omitempty"`
	// Faults are why a list or certificate stays as it was.
	Faults []string `json:"faults,omitempty"`
}

type fetchedList struct {
	Name       string    `json:"name"`
	Number     string    `json:"number"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Entries    int       `json:"entries"`
	Changed    bool      `json:"changed"`
}

func (o output) fetchedLists(r *fetchReport) error {
	return o.print(r, func(fact func(name, value string)) {
		fact("dir", r.Dir)
		for _, l := range r.Lists {
			state := "unchanged"
			if l.Changed {
				state = "new"
			}
			fact(l.Name, fmt.Sprintf("number %s, %d entries, until %s, %s", l.Number, l.Entries, instant(l.NextUpdate), state))
		}
		for _, m := range r.Missing {
			fact(m, "has no CRL here: its root is external; add its CRL where your program checks the whole chain")
		}
		for _, f := range r.Faults {
			fact("fault", f)
		}
	})
}

// find settles where to fetch from and whom to trust.
func (f *crlFetcher) find(a *app, cmd *cobra.Command, rootsFile string) error {
	home := Home(a.home(cmd))
	if f.base == "" {
		cfg, err := LoadConfig(string(home), a.getenv)
		if err != nil {
			return &usageError{errors.New("--url is missing, and there is no home to take it from"), "give the base of the URLs in certificates: --url http://ca.example:8080"}
		}
		f.base = cfg.PublicURL()
	}
	if rootsFile == "" {
		rootsFile = home.path("root.crt")
		if _, err := os.Stat(rootsFile); err != nil {
			return &usageError{errors.New("--roots is missing"), "give the root certificates that you trust, PEM: --roots root.crt"}
		}
	}
	f.base = strings.TrimSuffix(f.base, "/")
	var err error
	f.anchors, err = readCerts(rootsFile)
	return err
}

// fetchedCA is a CA below the anchors.
type fetchedCA struct {
	name  string
	cert  *x509.Certificate
	named bool // by the server, now
}

func (c fetchedCA) isCross() bool { return strings.Contains(c.name, "-by-") }

// fetch does it once. Its error is for what makes the whole useless; what concerns one list is in the report.
func (f *crlFetcher) fetch(ctx context.Context) (*fetchReport, error) {
	hashed := filepath.Join(f.dir, hashedDir)
	if err := os.MkdirAll(hashed, 0o755); err != nil {
		return nil, err
	}
	report := &fetchReport{Dir: f.dir, Lists: []fetchedList{}}
	cas, changed, err := f.authorities(ctx, report)
	if err != nil {
		return nil, err
	}
	var lists []*crl.List
	for _, c := range cas {
		if c.isCross() {
			continue
		}
		list, fresh, err := f.list(ctx, c)
		switch {
		case errors.Is(err, errNoList) && strings.HasPrefix(c.name, "root"):
			report.Missing = append(report.Missing, c.name)
		case errors.Is(err, errNoList) && !c.named: // revoked, or over
		case err != nil:
			report.Faults = append(report.Faults, fmt.Sprintf("%s: %v", c.name, err))
		}
		if list != nil {
			lists = append(lists, list)
			report.Lists = append(report.Lists, fetchedList{c.name, numberText(list.Number), list.ThisUpdate, list.NextUpdate, list.Count, fresh})
		}
		changed = changed || fresh
	}
	wrote, err := f.collect(cas, lists)
	if err != nil {
		return nil, err
	}
	report.Changed = changed || wrote
	if f.owed = f.owed || report.Changed; f.owed && f.then != "" {
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", f.then)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("the lists were written, but %q: %w", f.then, err)
		}
	}
	f.owed = false
	return report, nil
}

const hashedDir = "hashed"

// caName is that of a generation, or of the certificate between two roots.
var caName = regexp.MustCompile(`^(root|issuing)-[0-9]{1,6}(-by-[0-9]{1,6})?$`)

// authorities are the CAs in dir and those that the server names now, newest first, as far as they are below the anchors.
func (f *crlFetcher) authorities(ctx context.Context, report *fetchReport) (cas []fetchedCA, changed bool, err error) {
	files, err := filepath.Glob(filepath.Join(f.dir, "*.crt"))
	if err != nil {
		return nil, false, err
	}
	found := map[string]*x509.Certificate{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".crt")
		if certs, err := readCerts(file); err == nil && caName.MatchString(name) {
			found[name] = certs[0]
		}
	}
	fresh := map[string]bool{}
	names, err := f.names(ctx)
	if err != nil {
		if len(found) == 0 {
			return nil, false, err
		}
		report.Faults = append(report.Faults, err.Error())
	}
	for _, name := range names {
		if found[name] != nil {
			continue // the certificate of a generation never changes
		}
		raw, err := f.get(ctx, "/ca/"+name+".crt")
		if err == nil {
			found[name], err = x509.ParseCertificate(raw)
		}
		if err != nil {
			delete(found, name)
			report.Faults = append(report.Faults, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		fresh[name] = true
	}
	trusted := f.trusted(found)
	for name, cert := range found {
		file := filepath.Join(f.dir, name+".crt")
		switch {
		case !trusted[name] && fresh[name]:
			report.Faults = append(report.Faults, name+": its certificate does not lead to --roots; it is left out")
		case !trusted[name]: // it ended, or the anchors are others
			changed = true
			for _, ext := range []string{".crt", ".crl"} {
				if err := os.Remove(filepath.Join(f.dir, name+ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return nil, false, err
				}
			}
		default:
			cas = append(cas, fetchedCA{name, cert, slices.Contains(names, name)})
			if !fresh[name] {
				continue
			}
			changed = true
			if err := writeFile(file, pemCert(cert.Raw), 0o644); err != nil {
				return nil, false, err
			}
		}
	}
	slices.SortFunc(cas, func(a, b fetchedCA) int { return newerName(a.name, b.name) })
	return cas, changed, nil
}

// newerName sorts issuing before root, the newest of each first.
func newerName(a, b string) int {
	aRole, aRest, _ := strings.Cut(a, "-")
	bRole, bRest, _ := strings.Cut(b, "-")
	if aRole != bRole {
		return strings.Compare(aRole, bRole)
	}
	if len(aRest) != len(bRest) && !strings.Contains(aRest+bRest, "-") {
		return len(bRest) - len(aRest)
	}
	return strings.Compare(bRest, aRest)
}

// trusted says which certificates lead to the anchors. A root that is none of them does by its key: another certificate for
// it, by a root that is (RFC 9810 §4.4, NewWithOld), leads there.
func (f *crlFetcher) trusted(found map[string]*x509.Certificate) map[string]bool {
	anchors, between := path.Anchors(f.anchors), slices.Collect(maps.Values(found))
	good := map[string]bool{}
	for name, c := range found {
		_, err := path.Verify(c, between, path.Options{Anchors: anchors, Now: f.now()})
		good[name] = err == nil && c.IsCA
	}
	for name, c := range found {
		for other, d := range found {
			if good[other] && bytes.Equal(c.RawSubject, d.RawSubject) && bytes.Equal(c.RawSubjectPublicKeyInfo, d.RawSubjectPublicKeyInfo) && f.now().Before(c.NotAfter) {
				good[name] = good[name] || c.IsCA
			}
		}
	}
	return good
}

// names lists the CAs that the server publishes: from its index, or else one generation after the other.
func (f *crlFetcher) names(ctx context.Context) (names []string, err error) {
	raw, err := f.get(ctx, "/ca/index.json")
	if err == nil {
		var index struct{ CAs []struct{ Name string } }
		if err := json.Unmarshal(raw, &index); err != nil {
			return nil, fmt.Errorf("%s/ca/index.json: %w", f.base, err)
		}
		for _, c := range index.CAs {
			if caName.MatchString(c.Name) {
				names = append(names, c.Name)
			}
		}
		return names, nil
	}
	if !errors.Is(err, errNoList) {
		return nil, err
	}
	for _, role := range []string{"root", "issuing"} {
		newest, err := f.get(ctx, "/ca/"+role+".crt")
		if err != nil {
			return nil, err
		}
		for n := 1; n <= 1000; n++ {
			name := role + "-" + strconv.Itoa(n)
			raw, err := f.get(ctx, "/ca/"+name+".crt")
			if err == nil {
				names = append(names, name)
				if cross := fmt.Sprintf("%s-by-%d", name, n-1); role == "root" && n > 1 { // leads to it from the one before
					if _, err := f.get(ctx, "/ca/"+cross+".crt"); err == nil {
						names = append(names, cross)
					}
				}
			} else if !errors.Is(err, errNoList) {
				return nil, err
			}
			if bytes.Equal(raw, newest) {
				break
			}
		}
	}
	return names, nil
}

// list is the newest list of a CA: the one in dir, or a newer one that was fetched and written there. Beside an error, it is what is in dir.
func (f *crlFetcher) list(ctx context.Context, c fetchedCA) (list *crl.List, fresh bool, err error) {
	file := filepath.Join(f.dir, c.name+".crl")
	if raw, err := os.ReadFile(file); err == nil {
		if old, err := crl.Parse(raw); err == nil && old.Verify(c.cert, old.ThisUpdate) == nil {
			list = old
		}
	}
	path := "/crl/" + c.name + ".crl"
	if list == nil {
		delete(f.etags, path)
	}
	raw, err := f.get(ctx, path)
	if err != nil || raw == nil {
		return list, false, err
	}
	next, err := crl.Parse(raw)
	if err == nil {
		err = next.Verify(c.cert, f.now())
	}
	switch {
	case err != nil:
	case next.Base != nil || next.Point != nil || next.Number == nil:
		err = errors.New("it is not a complete CRL")
	case list != nil && next.Number.Cmp(list.Number) < 0:
		err = fmt.Errorf("the server's CRL has number %s, older than %s in %s", next.Number, list.Number, file)
	}
	if err != nil {
		delete(f.etags, path)
		return list, false, err
	}
	if list != nil && bytes.Equal(list.Raw, next.Raw) {
		return list, false, nil
	}
	return next, true, writeFile(file, raw, 0o644)
}

var errNoList = errors.New("the server has none")

// get fetches a path; nil if it has not changed since it was last fetched.
func (f *crlFetcher) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, f.base+path, nil)
	if err != nil {
		return nil, err
	}
	if etag := f.etags[path]; etag != "" {
		q.Header.Set("If-None-Match", etag)
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if strings.HasSuffix(path, ".crl") && resp.StatusCode < 400 {
		f.ages[path] = maxAge(resp.Header)
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		return nil, nil
	case http.StatusNotFound:
		return nil, fmt.Errorf("%s%s: %w", f.base, path, errNoList)
	default:
		return nil, fmt.Errorf("%s%s: %s", f.base, path, resp.Status)
	}
	raw, err := readAtMost(resp.Body, f.base+path)
	if err == nil && strings.HasSuffix(path, ".crl") {
		f.etags[path] = resp.Header.Get("ETag")
	}
	return raw, err
}

// maxAge is that of Cache-Control (RFC 9111 §5.2.2.1), a minute if there is none.
func maxAge(h http.Header) time.Duration {
	for _, directive := range strings.Split(h.Get("Cache-Control"), ",") {
		if value, ok := strings.CutPrefix(strings.TrimSpace(directive), "max-age="); ok {
			if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 {
				return time.Duration(seconds) * time.Second
			}
		}
	}
	return time.Minute
}

// collect writes the files that hold several lists or certificates, as far as they have changed.
func (f *crlFetcher) collect(cas []fetchedCA, lists []*crl.List) (changed bool, err error) {
	certs := slices.Clone(f.anchors)
	for _, c := range cas {
		if !slices.ContainsFunc(f.anchors, c.cert.Equal) {
			certs = append(certs, c.cert)
		}
	}
	want := map[string][]byte{}
	taken := map[string]int{}
	add := func(name []byte, ext, block string, raw []byte) error {
		hash, err := nameHash(name)
		if err != nil {
			return err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: block, Bytes: raw})
		n := taken[hash+ext]
		taken[hash+ext]++
		want[filepath.Join(hashedDir, hash+"."+ext+strconv.Itoa(n))] = text
		return nil
	}
	var allCerts, allLists []byte
	for _, c := range certs {
		allCerts = append(allCerts, pemCert(c.Raw)...)
		if err := add(c.RawSubject, "", "CERTIFICATE", c.Raw); err != nil {
			return false, err
		}
	}
	for _, l := range lists {
		allLists = append(allLists, pemCRL(l.Raw)...)
		if err := add(l.Issuer, "r", "X509 CRL", l.Raw); err != nil {
			return false, err
		}
	}
	want["cas.pem"], want["crls.pem"] = allCerts, allLists
	for name, content := range want {
		path := filepath.Join(f.dir, name)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			continue
		}
		changed = true
		if err := writeFile(path, content, 0o644); err != nil {
			return false, err
		}
	}
	// What is left of lists and certificates that are gone.
	there, err := os.ReadDir(filepath.Join(f.dir, hashedDir))
	for _, e := range there {
		if name := filepath.Join(hashedDir, e.Name()); want[name] == nil && hashedName.MatchString(e.Name()) {
			changed = true
			err = errors.Join(err, os.Remove(filepath.Join(f.dir, name)))
		}
	}
	return changed, err
}

var hashedName = regexp.MustCompile(`^[0-9a-f]{8}\.r?[0-9]+$`)

// Waits of watch: no more often than fetchAtLeast, whatever the server allows, no more seldom than fetchAtMost.
const (
	fetchAtLeast = 10 * time.Second
	fetchAtMost  = time.Hour
)

// wait is until the next fetch: what the server lets caches keep, but not past half of what is left of a list.
func (f *crlFetcher) wait(r *fetchReport) time.Duration {
	wait := fetchAtMost
	for _, age := range f.ages {
		wait = min(wait, age)
	}
	for _, l := range r.Lists {
		wait = min(wait, l.NextUpdate.Sub(f.now())/2)
	}
	return max(wait, fetchAtLeast)
}

// watch keeps the files current until ctx ends.
func (f *crlFetcher) watch(ctx context.Context, o output) error {
	first := true
	for {
		wait := fetchAtLeast
		report, err := f.fetch(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			o.note("%s: %s; trying again in %s, the files stay", instant(f.now()), err, wait)
		default:
			if report.Changed || first || len(report.Faults) > 0 {
				o.now = f.now()
				if err := o.fetchedLists(report); err != nil {
					return err
				}
			}
			first, wait = false, f.wait(report)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
