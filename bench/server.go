package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// deviceca is the server under test: a fresh home, SoftHSM tokens, the default policy with keys made by the server allowed.
type deviceca struct {
	*process
	target
	program, home, metrics string
	plain                  target // its plain HTTP
	reference, secret      string // of a group credential that covers every device of ours
	authorization          string // HTTP Basic of the same
}

// credentialUses is more than any run enrols.
const credentialUses = 10_000_000

func startDeviceca(ctx context.Context, program, dir string) (*deviceca, error) {
	s := &deviceca{program: program, home: filepath.Join(dir, "ca")}
	var addrs [3]string
	for i := range addrs {
		var err error
		if addrs[i], err = freeAddr(); err != nil {
			return nil, err
		}
	}
	s.addr, s.plain.addr, s.metrics = addrs[0], addrs[1], addrs[2]
	if _, err := s.command(ctx, "init", "--home", s.home, "--url", "http://"+addrs[1]); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "serve", "--home", s.home, "--https", s.addr, "--http", addrs[1], "--metrics", s.metrics)
	// The load comes from one address, and from few accounts and devices.
	for _, limit := range []string{"ACCOUNTS_PER_ADDRESS", "ORDERS_PER_ACCOUNT", "ORDERS_PER_ADDRESS", "NONCES_PER_ADDRESS"} {
		cmd.Env = append(cmd.Environ(), "DEVICECA_ACME_"+limit+"=1000000")
	}
	for _, limit := range []string{"CERTIFICATES_PER_DEVICE", "ACTS_PER_DEVICE", "ACTS_PER_CREDENTIAL", "ACTS_PER_ACCOUNT", "ACTS_PER_REGISTRAR", "ACTS_PER_ADDRESS"} {
		cmd.Env = append(cmd.Environ(), "DEVICECA_LIMITS_"+limit+"=0")
	}
	var err error
	if s.process, err = start(cmd, filepath.Join(dir, "deviceca.log")); err != nil {
		return nil, err
	}
	if err := s.setUp(ctx, addrs[1]); err != nil {
		s.kill()
		return nil, err
	}
	return s, nil
}

func (s *deviceca) setUp(ctx context.Context, plain string) error {
	if err := s.until(ctx, func() error {
		_, err := get(ctx, "http://"+plain+"/readyz")
		return err
	}); err != nil {
		return err
	}
	root, err := os.ReadFile(filepath.Join(s.home, "root.crt"))
	if err != nil {
		return err
	}
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(root)
	// The default policy, with the one thing that it forbids and that is measured here.
	policy, err := os.ReadFile(filepath.Join(s.home, "policy.yaml"))
	if err != nil {
		return err
	}
	allowed := filepath.Join(s.home, "bench-policy.yaml")
	const uses = "    eku: [clientAuth]\n"
	if err := os.WriteFile(allowed, []byte(strings.Replace(string(policy), uses, uses+"    server_keygen: {allow: true, clear: true}\n", 1)), 0o600); err != nil {
		return err
	}
	if _, err := s.command(ctx, "policy", "apply", allowed, "--home", s.home); err != nil {
		return err
	}
	grant, err := s.addGroup(ctx, "bench", "software")
	if err != nil {
		return err
	}
	s.reference, s.secret = grant.Reference, grant.Secret
	s.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(grant.Reference+":"+grant.Secret))
	return nil
}

// addGroup makes a credential for all devices whose IDs begin with the group's name and "-".
func (s *deviceca) addGroup(ctx context.Context, group, level string) (*ca.Grant, error) {
	out, err := s.command(ctx, "credential", "add", "--home", s.home, "--group", group, "--names", group+"-*", "--level", level,
		"--uses", strconv.Itoa(credentialUses), "--json")
	if err != nil {
		return nil, err
	}
	var grant ca.Grant
	if err := json.Unmarshal(out, &grant); err != nil {
		return nil, fmt.Errorf("credential add printed %q: %w", out, err)
	}
	return &grant, nil
}

// command runs the program with other arguments and returns its stdout.
func (s *deviceca) command(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, args...)
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("deviceca %s: %w", args[0], err)
	}
	return out, nil
}

// counters are what the server's /metrics count.
type counters struct{ certificates, signatures, commits, changes, mallocs, bytes float64 }

func (s *deviceca) counters(ctx context.Context) (c counters, err error) {
	text, err := get(ctx, "http://"+s.metrics+"/metrics")
	if err != nil {
		return c, err
	}
	want := map[string]*float64{
		"deviceca_certificates_total": &c.certificates, "deviceca_signatures_total": &c.signatures,
		"deviceca_store_commits_total": &c.commits, "deviceca_store_changes_total": &c.changes,
		"go_memstats_mallocs_total": &c.mallocs, "go_memstats_alloc_bytes_total": &c.bytes,
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if v, ok := want[name]; ok {
			if *v, err = strconv.ParseFloat(value, 64); err != nil {
				return c, fmt.Errorf("metric %s: %w", name, err)
			}
			delete(want, name)
		}
	}
	for name := range want {
		return c, fmt.Errorf("the server has no metric %s", name)
	}
	return c, nil
}

func (c counters) minus(o counters) counters {
	return counters{c.certificates - o.certificates, c.signatures - o.signatures, c.commits - o.commits,
		c.changes - o.changes, c.mallocs - o.mallocs, c.bytes - o.bytes}
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s: %.200s", url, resp.Status, body)
	}
	return string(body), err
}
