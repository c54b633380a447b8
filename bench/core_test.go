package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/attest"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/est"
	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

// loadEnv makes the test binary the load of BenchmarkServer, so that its work is
// not in the server's profile.
const loadEnv = "DEVICECA_BENCH_LOAD"

func TestMain(m *testing.M) {
	if order := os.Getenv(loadEnv); order != "" {
		if err := loadProcess(order); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// core is the heart of a server as `serve` wires it: SoftHSM, SQLite, the default policy.
type core struct {
	*ca.Service
	store   *store.Store
	signer  keys.Key
	issuing *x509.Certificate
	root    []byte
	grant   *ca.Grant
	next    atomic.Int64
}

func newCore(b testing.TB) *core {
	b.Helper()
	ctx := b.Context()
	uri, _ := keystest.SoftHSM(b)
	provider := must(keys.Open(ctx, uri, keys.Options{}))(b)
	b.Cleanup(func() { provider.Close() })
	c := &core{store: must(store.Open(ctx, filepath.Join(b.TempDir(), "ledger.db"), store.Options{}))(b)}
	b.Cleanup(func() { c.store.Close() })
	c.signer = must(provider.Generate(ctx, "issuing-1", keys.ECDSAP256))(b)
	signers := map[string]crypto.Signer{"issuing-1": c.signer, "quarantine-1": must(provider.Generate(ctx, "quarantine-1", keys.ECDSAP256))(b)}
	rootKey := must(newKey())(b)
	h := ca.Hierarchy{Organization: "Bench", URL: "http://127.0.0.1:8080", Now: time.Now()}
	c.root = must(ca.NewRoot(rootKey, 1, h))(b)
	add := func(role, name string, cert []byte) {
		event := ca.Event{Kind: ca.EventIssuerAdded, Time: time.Now()}
		if err := c.store.AddIssuer(ctx, ca.IssuerRecord{Name: name, Role: role, Generation: 1, Key: name, Cert: cert, Created: time.Now()}, event); err != nil {
			b.Fatal(err)
		}
	}
	add("root", "root", c.root)
	for _, role := range []string{"issuing", "quarantine"} {
		cert := must(ca.NewSubordinate(c.root, rootKey, role, 1, signers[role+"-1"].Public(), h))(b)
		add(role, role+"-1", cert)
		if role == "issuing" {
			c.issuing = must(x509.ParseCertificate(cert))(b)
		}
	}
	c.Service = must(ca.NewService(ctx, ca.Options{Ledger: c.store, Sealer: must(device.NewSealer(make([]byte, 32)))(b),
		Policy: must(policy.Parse("policy.yaml", policy.Default()))(b), Key: func(_ context.Context, label string) (crypto.Signer, error) { return signers[label], nil }, URL: h.URL, LintShare: 0.01,
		Verifiable: map[string][]string{"acme": {"tpm"}},
		// Too large to be met, and counted all the same.
		Budgets: ca.Budgets{CertificatesPerDevice: 1 << 24, ActsPerDevice: 1 << 30, ActsPerCredential: 1 << 30, ActsPerAccount: 1 << 30, ActsPerRegistrar: 1 << 30, ActsPerAddress: 1 << 30}}))(b)
	c.grant = must(c.AddCredential(ctx, device.Credential{Group: "bench", Names: []string{"bench-*"}, Level: "software", Uses: 100_000_000}, time.Hour, "admin:bench"))(b)
	return c
}

// must makes an error the end of the benchmark.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// member is a device with a certificate.
func (c *core) member(b *testing.B) *x509.Certificate {
	b.Helper()
	id := fmt.Sprintf("bench-%d", c.next.Add(1))
	r := must(c.AuthenticateSecret(b.Context(), c.grant.Reference, c.grant.Secret, netip.MustParseAddr("127.0.0.1")))(b)
	issued := must(c.Enroll(b.Context(), request(b, r, must(newCSR(id, must(newKey())(b)))(b))))(b)
	return must(x509.ParseCertificate(issued.Certificate.DER))(b)
}

func request(b testing.TB, r ca.Requester, csr []byte) ca.Request {
	parsed := must(ca.ParseCSR(csr))(b)
	return ca.Request{Protocol: "est", Requester: r, PublicKey: parsed.PublicKey, SPKI: parsed.SPKI, Names: parsed.Names}
}

// measure runs the loop of a benchmark on some goroutines and reports processor
// time, which other work on the machine disturbs less than the clock.
func measure(b *testing.B, goroutines int, f func(n int) error) {
	b.Helper()
	b.ReportAllocs()
	var next atomic.Int64
	b.ResetTimer()
	before := processorTime()
	err := each(make([]struct{}, goroutines), func(int, struct{}) error {
		for n := next.Add(1) - 1; n < int64(b.N); n = next.Add(1) - 1 {
			if err := f(int(n)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	used := processorTime() - before
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/used.Seconds(), "op/cpu-s")
}

// BenchmarkStep is the cost of each step of a renewal over kept-alive mTLS, alone;
// BenchmarkStep/enroll is steps 2 to 7 of ca.Service.Enroll together.
func BenchmarkStep(b *testing.B) {
	c := newCore(b)
	const devices = 32
	var fleet []*x509.Certificate
	for range devices {
		fleet = append(fleet, c.member(b))
	}
	pick := func(n int) *x509.Certificate { return fleet[n%devices] }
	csrs := func(b *testing.B) [][]byte {
		all := make([][]byte, b.N)
		if err := parallel(b.N, func(n int) (err error) {
			key, err := newKey()
			if err != nil {
				return err
			}
			all[n], err = newCSR(pick(n).Subject.CommonName, key)
			return err
		}); err != nil {
			b.Fatal(err)
		}
		return all
	}
	authenticate := func(n int) (ca.Requester, error) {
		return c.AuthenticateCertificate(b.Context(), []*x509.Certificate{pick(n)})
	}

	b.Run("parse CSR", func(b *testing.B) {
		all := csrs(b)
		measure(b, 2, func(n int) error { _, err := ca.ParseCSR(all[n]); return err })
	})
	b.Run("verify P-256", func(b *testing.B) {
		key := must(newKey())(b)
		digest := sha256.Sum256([]byte("bench"))
		sig := must(ecdsa.SignASN1(rand.Reader, key, digest[:]))(b)
		measure(b, 2, func(int) error {
			if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], sig) {
				return fmt.Errorf("does not verify")
			}
			return nil
		})
	})
	b.Run("authenticate", func(b *testing.B) {
		measure(b, 2, func(n int) error { _, err := authenticate(n); return err })
	})
	b.Run("standing", func(b *testing.B) {
		measure(b, 2, func(n int) error {
			_, err := c.store.Standing(b.Context(), pick(n).Subject.CommonName, sha256.Sum256([]byte(strconv.Itoa(n))))
			return err
		})
	})
	b.Run("decide", func(b *testing.B) {
		p := c.Policy()
		measure(b, 2, func(n int) error {
			d := p.Decide(policy.Input{Now: time.Now(), Protocol: "est", Operation: "renew", Requester: policy.ByCertificate, Profile: "device",
				Device: policy.Device{ID: "bench-1", Level: "software", Group: "bench", State: "active"}, Key: "ecdsa-p256",
				Names: []policy.Name{{Form: "subject.cn", Value: "bench-1"}}})
			if d.Outcome != policy.Issue {
				return fmt.Errorf("%v", d)
			}
			return nil
		})
	})
	b.Run("attest by TPM", func(b *testing.B) {
		tpm := must(newSoftTPM())(b)
		const challenge = "token.thumbprint"
		statement, quote := must(tpm.attest("bench-1", &must(newKey())(b).PublicKey))(b).statement(b, challenge)
		anchors := []attest.Anchor{{Manufacturer: "bench", Certificates: []*x509.Certificate{tpm.authority.Root}}}
		measure(b, 2, func(int) error {
			_, err := attest.TPM().Verify(attest.Statement{Raw: statement, Quote: quote, Challenge: []byte(challenge), Anchors: anchors, Now: time.Now()})
			return err
		})
	})
	digest := sha256.Sum256([]byte("bench"))
	for _, goroutines := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("token sign/%d", goroutines), func(b *testing.B) {
			measure(b, goroutines, func(int) error { _, err := c.signer.Sign(nil, digest[:], crypto.SHA256); return err })
		})
	}
	b.Run("enroll", func(b *testing.B) {
		all := csrs(b)
		requests := make([]ca.Request, b.N)
		if err := parallel(b.N, func(n int) error {
			r, err := authenticate(n)
			requests[n] = request(b, r, all[n])
			return err
		}); err != nil {
			b.Fatal(err)
		}
		before := c.store.Stats()
		measure(b, 32, func(n int) error { _, err := c.Enroll(b.Context(), requests[n]); return err })
		after := c.store.Stats()
		b.ReportMetric(float64(after.Changes-before.Changes)/float64(after.Commits-before.Commits), "changes/commit")
	})
}

// statement is what answer says, before it is put into JSON.
func (a *attested) statement(b *testing.B, keyAuthorization string) (statement, quote []byte) {
	b.Helper()
	var payload struct{ AttObj, Quote string }
	if err := json.Unmarshal(must(a.answer(keyAuthorization))(b), &payload); err != nil {
		b.Fatal(err)
	}
	object := must(attest.ParseObject(must(base64url.DecodeString(payload.AttObj))(b)))(b)
	return object.Statement, must(base64url.DecodeString(payload.Quote))(b)
}

// loadOrder is what the load process is told.
type loadOrder struct {
	Addr, Authorization string
	ACME                *ca.ACMEGrant // orders instead of renewals
	Root                []byte
	Connections, Total  int
	Limit               time.Duration
}

// BenchmarkServer serves EST as `serve` does and lets another process renew over
// kept-alive mTLS: its profile (-cpuprofile) is the server's. The time is bounded by
// -benchtime, as a number of renewals ("20000x").
func BenchmarkServer(b *testing.B) {
	if b.N == 1 {
		return // testing's first try; the load has a set-up of its own
	}
	c := newCore(b)
	c.serve(b, est.New(est.Options{Authority: c.Service, Logger: quiet()}),
		loadOrder{Authorization: "Basic " + base64.StdEncoding.EncodeToString([]byte(c.grant.Reference+":"+c.grant.Secret))})
}

// BenchmarkACME is the same with orders that the account's binding authorizes, each for a new device.
func BenchmarkACME(b *testing.B) {
	if b.N == 1 {
		return
	}
	c := newCore(b)
	c.serve(b, acme.New(acme.Options{Authority: c.Service, Ledger: c.store, Hosts: []string{"127.0.0.1"}, Logger: quiet(),
		Limits: acme.Limits{OrdersPerAccount: 1e6, OrdersPerAddress: 1e6, NoncesPerAddress: 1e6}}), loadOrder{ACME: &c.grant.ACME})
}

// quiet logs to nowhere: only levels and a real encoding matter for cost.
func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// serve runs a server under the load of another process.
func (c *core) serve(b *testing.B, handler http.Handler, order loadOrder) {
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}
	server.StartTLS()
	defer server.Close()

	order.Addr, order.Connections, order.Total, order.Limit = server.Listener.Addr().String(), 32, b.N, time.Minute
	order.Root = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	text := must(json.Marshal(order))(b)
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), loadEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	stdin, stdout := must(cmd.StdinPipe())(b), must(cmd.StdoutPipe())(b)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	await := func(what string) {
		var word string
		if _, err := fmt.Fscan(stdout, &word); err != nil || word != what {
			b.Fatalf("the load says %q (%v), want %q", word, err, what)
		}
	}
	await("ready")
	before, stats, issued := processorTime(), c.store.Stats(), c.Stats().Issued
	b.ReportAllocs()
	b.ResetTimer()
	fmt.Fprintln(stdin, "go")
	await("done")
	b.StopTimer()
	used := processorTime() - before
	now := c.store.Stats()
	n := float64(c.Stats().Issued - issued)
	b.ReportMetric(float64(used.Microseconds())/n, "cpu-µs/op")
	b.ReportMetric(n/used.Seconds(), "op/cpu-s")
	b.ReportMetric(float64(now.Changes-stats.Changes)/float64(now.Commits-stats.Commits), "changes/commit")
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
}

// loadProcess is the other end of BenchmarkServer.
func loadProcess(text string) error {
	var order loadOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return err
	}
	ctx := context.Background()
	t := target{addr: order.Addr, roots: x509.NewCertPool()}
	t.roots.AppendCertsFromPEM(order.Root)
	members, err := order.members(ctx, t)
	if err != nil {
		return err
	}
	w := work{target: t, connection: keptAlive, devices: members, limit: order.Limit}
	_, err = w.run(ctx, func() error {
		fmt.Println("ready")
		_, err := fmt.Scanln(new(string))
		return err
	}, func() error { fmt.Println("done"); return nil })
	return err
}

func (o *loadOrder) members(ctx context.Context, t target) ([]*member, error) {
	if o.ACME == nil {
		fleet, err := enrolFleet(ctx, t, o.Connections, o.Authorization)
		if err != nil {
			return nil, err
		}
		return fleet.newKeys(estPath+"simpleenroll", o.Total)
	}
	s, err := ourServer(t, *o.ACME)
	if err != nil {
		return nil, err
	}
	clients, err := s.accounts(ctx, o.Connections)
	if err != nil {
		return nil, err
	}
	return acmeLoad{clients: clients, prepare: func(_, n int) (*acmeOrder, error) { return boundOrder(fmt.Sprintf("bench-%d", n)) }}.members(0, o.Total)
}
