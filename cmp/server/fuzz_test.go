package server_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/cmp/server"
	"github.com/deviceca/deviceca/policy"
)

// known is a fake that knows a device's certificate and a registration authority's.
type known struct {
	fake
	own, ra party
}

func (k known) AuthenticateCertificate(_ context.Context, chain []*x509.Certificate) (ca.Requester, error) {
	switch {
	case chain[0].Equal(k.ra.crt):
		return ca.Requester{Kind: policy.ByRA, RA: &ca.RA{Name: "ra", Names: []string{"*"}, Levels: []string{"software"}}}, nil
	case chain[0].Equal(k.own.crt):
		return ca.Requester{Kind: policy.ByCertificate, Device: "device", Certificate: k.cert}, nil
	}
	return k.fake.AuthenticateCertificate(nil, chain)
}

func (k known) CertificateBySerial(context.Context, ca.Serial) (*ca.Certificate, error) {
	return k.cert, nil
}
func (k known) Revoke(context.Context, ca.Serial, int, *time.Time, string) (*ca.Certificate, error) {
	return k.cert, nil
}
func (k known) Release(context.Context, ca.Serial, string) (*ca.Certificate, error) {
	return k.cert, nil
}

// FuzzBody protects whatever comes anew, with the messages within it, so that
// the fuzzer gets past the protection: by the device, the RA, or a secret.
func FuzzBody(f *testing.F) {
	e := newEnv(f, withProfiles)
	whole := e.wholeMessages()
	k := known{own: e.enrolled("device"), ra: e.registerRA("fuzz", "*")}
	serial := serialOf(k.own)
	k.fake = fake{signer: e.core.Service, cert: &ca.Certificate{Serial: serial, Device: "device", Level: "software", DER: k.own.crt.Raw,
		NotAfter: time.Now().Add(time.Hour), Revocation: &ca.Revocation{Reason: ca.ReasonCertificateHold}}}
	secret := party{mac: must[*cmp.MAC](f)(cmp.NewMAC([]byte("1234"), []byte("1234-5678-1234-5678"), cmp.MACParams{Iterations: 100}))}
	parties := []cmp.Protector{k.own.protector(f), k.ra.protector(f), secret.mac}
	for i, m := range e.oddMessages() {
		whole[fmt.Sprintf("odd %d", i)] = m
	}
	for _, m := range whole {
		for by := range parties {
			f.Add(m.Raw(), uint8(by))
		}
	}
	// Much work to check: 13 blocks of PBKDF2, and a key as long as a message.
	for _, length := range []int{256, 128 << 10} {
		heavy := must[*cmp.MAC](f)(cmp.NewMAC([]byte("1234"), []byte("1234"), cmp.MACParams{Kind: cmp.PBMAC1, OWF: crypto.SHA1, Iterations: 1, KeyLength: length}))
		f.Add(e.protected(e.message(&cmp.General{}), party{mac: heavy}), uint8(2))
	}
	s := must[*server.Server](f)(server.New(f.Context(), server.Options{Authority: k, Ledger: k, Lists: lists{},
		TimeWindow: 100 * 365 * 24 * time.Hour, Logger: slog.New(slog.DiscardHandler)}))
	var again func(m *cmp.Message, by cmp.Protector) error
	again = func(m *cmp.Message, by cmp.Protector) error {
		if b, ok := m.Body.(*cmp.NestedMessages); ok {
			for _, inner := range b.Messages {
				if err := again(inner, parties[0]); err != nil {
					return err
				}
			}
		}
		if !m.Header.Time.IsZero() {
			m.Header.Time = time.Now()
		}
		return m.Protect(by)
	}
	f.Fuzz(func(t *testing.T, raw []byte, by uint8) {
		m, err := cmp.Parse(raw)
		if err != nil || again(m, parties[int(by)%len(parties)]) != nil {
			return
		}
		r := httptest.NewRequest("POST", server.Prefix, bytes.NewReader(m.Raw()))
		r.Header.Set("Content-Type", "application/pkixcmp")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code >= 400 && w.Code < 500 {
			return
		}
		answer, err := cmp.Parse(must[[]byte](t)(io.ReadAll(w.Result().Body)))
		if w.Code != 200 || err != nil || answer.Protection == nil {
			t.Fatalf("HTTP %d: %v", w.Code, err)
		}
		if got := status(answer).FailInfo; got&cmp.SystemFailure != 0 {
			t.Errorf("%s: %v", m.Body.Type(), status(answer))
		}
	})
}
