package server_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/cmp/server"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// TestCut sends every seventh prefix of a valid ir, and appends to it.
func TestCut(t *testing.T) {
	e := newEnv(t)
	raw := e.protected(e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil))), e.register("lamp-1", 1))
	for n := 0; n < len(raw); n += 7 {
		if got := status(e.post("", raw[:n])).FailInfo; got != cmp.BadDataFormat {
			t.Errorf("%d octets: %s", n, got)
		}
	}
	if got := status(e.post("", append(bytes.Clone(raw), 0))).FailInfo; got != cmp.BadDataFormat {
		t.Errorf("with an octet after it: %s", got)
	}
	if e.core.enrolled.Load() != 0 {
		t.Error("the core was asked")
	}
}

// TestTooMuch asks for more work than anybody needs; each is refused at once.
func TestTooMuch(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 1)
	one := crmf(t, "lamp-1", newKey(t), nil)
	many := make([]*cmp.CertReqMsg, 10_000)
	for i := range many {
		many[i] = &cmp.CertReqMsg{POP: &cmp.POP{Method: cmp.RAVerified}}
	}
	nested := e.message(requests(cmp.IR, one))
	e.protected(nested, lamp)
	for range 30 {
		nested = cmp.NewNested(cmp.HeaderOptions{Time: e.now()}, nested)
		e.protected(nested, lamp)
	}
	least := must[*cmp.Message](t)(cmp.Parse([]byte("\x30\x11\x30\x0b\x02\x01\x02\xa4\x02\x30\x00\xa4\x02\x30\x00\xb3\x02\x05\x00")))
	small := slices.Repeat([]*cmp.Message{least}, 10_000)
	ra := e.registerRA("line-1", "*")
	// A billion rounds, written over the 1,000 that the MAC was made with.
	slow := e.protected(e.message(requests(cmp.IR, one)), lamp)
	rounds := bytes.Replace(slow, []byte{2, 2, 3, 0xe8}, []byte{2, 2, 0x7f, 0xff}, 1) // still in bounds: the MAC is wrong
	if bytes.Equal(rounds, slow) {
		t.Fatal("the iteration count is not where it was")
	}
	billion := e.message(requests(cmp.IR, one))
	e.protected(billion, lamp)
	params := bytes.Replace(billion.Header.ProtectionAlg.Params, []byte{2, 2, 3, 0xe8}, []byte{2, 4, 0x3b, 0x9a, 0xca, 0}, 1)
	params[1] += 2
	billion.Header.ProtectionAlg.Params = params
	for _, c := range []struct {
		name string
		raw  []byte
		want cmp.FailInfo
	}{
		{"10,000 CertReqMsgs", e.protected(e.message(requests(cmp.IR, many...)), lamp), cmp.BadDataFormat},
		{"10,000 messages in a batch", e.nest(ra, small...).Raw(), cmp.BadDataFormat},
		{"nested 30 deep", nested.Raw(), cmp.BadDataFormat},
		{"a billion iterations", must[[]byte](t)(billion.Marshal()), cmp.BadAlg},
		{"32,767 iterations and a wrong MAC", rounds, cmp.BadMessageCheck},
		{"64 kB of SEQUENCEs", bytes.Repeat([]byte{0x30, 0x80}, 32<<10), cmp.BadDataFormat},
	} {
		start := time.Now()
		got := status(e.post("", c.raw)).FailInfo
		if took := time.Since(start); got != c.want || took > 2*time.Second {
			t.Errorf("%s: %s after %s, want %s", c.name, got, took, c.want)
		}
	}
	if e.core.enrolled.Load() != 0 {
		t.Error("the core was asked")
	}
}

// fake is a core that knows one secret and issues one certificate, and a ledger in memory that forgets.
type fake struct {
	server.Ledger
	cert   *ca.Certificate
	signer *ca.Service
}

func (fake) CredentialSecret(_ context.Context, reference string) (ca.Requester, device.Secret, error) {
	if reference != "1234" {
		return ca.Requester{}, device.NewSecret(), nil
	}
	return ca.Requester{Kind: policy.ByCredential, Device: "device"}, "1234-5678-1234-5678", nil
}

func (fake) AuthenticateCertificate(context.Context, []*x509.Certificate) (ca.Requester, error) {
	return ca.Requester{}, ca.Errorf(ca.Unauthenticated, "foreign")
}

func (f fake) Enroll(_ context.Context, r ca.Request) (*ca.Issued, error) {
	issued := &ca.Issued{Certificate: f.cert, Outcome: policy.Issue}
	_, err := r.With(issued)
	return issued, err
}

func (fake) MayActFor(context.Context, ca.Requester, ca.Deed) error { return nil }

func (fake) Revoke(context.Context, ca.Serial, int, *time.Time, string) (*ca.Certificate, error) {
	return nil, ca.Errorf(ca.NotFound, "none")
}

func (f fake) Release(context.Context, ca.Serial, string) (*ca.Certificate, error) {
	return nil, ca.Errorf(ca.Conflict, "not on hold")
}

func (fake) Spend(ca.Requester, string, string) error { return nil }

func (fake) SecretsLimited(string, netip.Addr) bool { return false }
func (fake) WrongSecret(string, netip.Addr) error {
	return ca.Errorf(ca.Unauthenticated, "unknown reference or wrong secret")
}

func (f fake) IssueBuiltin(ctx context.Context, which ca.Builtin, issuer string, pub crypto.PublicKey, names []ca.SAN, validity time.Duration) (*ca.Issued, error) {
	return f.signer.IssueBuiltin(ctx, which, issuer, pub, names, validity)
}
func (f fake) Anchors() [][]byte            { return [][]byte{f.cert.DER} }
func (f fake) Issuers() []ca.IssuerRecord   { return nil }
func (f fake) CACert(string) ([]byte, bool) { return nil, false }
func (f fake) ProfileFor(ca.Requester, string) (policy.Profile, error) {
	return policy.Profile{Name: "device", Keys: []string{"ecdsa-p256"}, KeyUsage: []string{"keyAgreement", "keyEncipherment"},
		ServerKeygen: policy.ServerKeygen{Allow: true}}, nil
}

func (fake) Transaction(context.Context, [32]byte) (*server.Transaction, error) {
	return nil, ca.ErrNoRecord
}
func (fake) BeginTransaction(context.Context, *server.Transaction, time.Time) (*server.Transaction, bool, error) {
	return nil, false, nil
}
func (fake) KeepTransaction(context.Context, *server.Transaction) error   { return nil }
func (fake) FinishTransaction(context.Context, *server.Transaction) error { return nil }
func (fake) DropTransaction(context.Context, [32]byte) error              { return nil }
func (fake) WaitingTransaction(context.Context, ca.Serial) (*server.Transaction, error) {
	return nil, ca.ErrNoRecord
}
func (fake) SeenTransaction(context.Context, [32]byte, string, int) (bool, int, error) {
	return false, 0, nil
}
func (fake) LevelFor(ca.Requester) (policy.Level, bool) {
	return policy.Level{CMP: policy.CMP{Timeless: true}}, true
}
func (fake) RAs(context.Context) ([]ca.RA, error) { return nil, nil }
func (fake) CertificateBySerial(context.Context, ca.Serial) (*ca.Certificate, error) {
	return nil, ca.ErrNoRecord
}

// FuzzServer: whatever comes, a protected PKIMessage or an HTTP error goes out.
func FuzzServer(f *testing.F) {
	e := newEnv(f, withProfiles)
	own := e.enrolled("device")
	seeds := 0
	for _, pattern := range []string{"rustcrypto/*.bin", "go-pkicmp/*.der", "openssl-*/*.der"} {
		files := must[[]string](f)(filepath.Glob(filepath.Join("../testdata/vectors", pattern)))
		for _, file := range files {
			f.Add(must[[]byte](f)(os.ReadFile(file)))
			seeds++
		}
	}
	if seeds < 20 {
		f.Fatalf("only %d seeds", seeds)
	}
	f.Add(e.protected(e.message(requests(cmp.KUR, crmf(f, "device", newKey(f), nil))), own))
	for _, m := range e.wholeMessages() {
		f.Add(m.Raw())
	}
	// What the fake answers: by its secret, a key to be made and proofs that follow.
	shared := party{id: "device", mac: must[*cmp.MAC](f)(cmp.NewMAC([]byte("1234"), []byte("1234-5678-1234-5678"), cmp.MACParams{Iterations: 100}))}
	for _, body := range []cmp.Body{
		requests(cmp.IR, noKey("device", nil)),
		requests(cmp.IR, noKey("device", kindOf(f, newKey(f)))),
		requests(cmp.IR, later(f, "device", newKey(f), cmp.EncrCert)),
		requests(cmp.CR, later(f, "device", newKey(f), cmp.ChallengeResp)),
		&cmp.ChallengeAnswers{List: []*big.Int{big.NewInt(1)}},
	} {
		f.Add(e.protected(e.message(body), shared))
	}
	core := fake{signer: e.core.Service, cert: &ca.Certificate{Serial: ca.NewSerial(1, [12]byte{}), Device: "device", DER: own.crt.Raw}}
	// 2023-01-17, when some of the vectors were fresh.
	s := must[*server.Server](f)(server.New(f.Context(), server.Options{Authority: core, Ledger: core, TimeWindow: 100 * 365 * 24 * time.Hour,
		Logger: slog.New(slog.DiscardHandler)}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := httptest.NewRequest("POST", server.Prefix, bytes.NewReader(raw))
		r.Header.Set("Content-Type", "application/pkixcmp")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		answer := must[[]byte](t)(io.ReadAll(w.Result().Body))
		if w.Code >= 400 && w.Code < 500 {
			return
		}
		m, err := cmp.Parse(answer)
		if w.Code != 200 || err != nil || m.Protection == nil {
			t.Errorf("HTTP %d: %v", w.Code, err)
		}
	})
}
