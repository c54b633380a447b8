package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// fakeTPM answers each command with the next code; at the end with 0, or never.
type fakeTPM struct {
	codes  []tpm2.TPMRC
	hangs  bool
	sent   []string
	closed bool
}

func (f *fakeTPM) Send(command []byte) ([]byte, error) {
	f.sent = append(f.sent, string(command))
	code := tpm2.TPMRC(0)
	if len(f.codes) > 0 {
		code, f.codes = f.codes[0], f.codes[1:]
	} else if f.hangs {
		select {}
	}
	return binary.BigEndian.AppendUint32([]byte{0x80, 1, 0, 0, 0, 10}, uint32(code)), nil
}

func (f *fakeTPM) Close() error {
	f.closed = true
	return nil
}

func codeOf(answer []byte) tpm2.TPMRC { return tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])) }

// TestPatience: what a TPM had no time for is sent again, for a while.
func TestPatience(t *testing.T) {
	for _, tt := range []struct {
		name  string
		codes []tpm2.TPMRC
		want  tpm2.TPMRC
		sent  int
	}{
		{"at once", nil, 0, 1},
		{"self-test", []tpm2.TPMRC{tpm2.TPMRCTesting, tpm2.TPMRCTesting, tpm2.TPMRCYielded, tpm2.TPMRCRetry, tpm2.TPMRCNVRate}, 0, 6},
		{"another fault", []tpm2.TPMRC{tpm2.TPMRCLockout}, tpm2.TPMRCLockout, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeTPM{codes: tt.codes}
			p := newPatient(nil, f)
			answer, err := p.Send([]byte("command"))
			if err != nil || codeOf(answer) != tt.want || len(f.sent) != tt.sent || strings.Join(f.sent, "") != strings.Repeat("command", tt.sent) {
				t.Errorf("%s: %x, %v after %q", tt.name, answer, err, f.sent)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeTPM)
		for range 1000 {
			f.codes = append(f.codes, tpm2.TPMRCNVRate)
		}
		start := time.Now()
		answer, err := newPatient(t.Context(), f).Send(nil)
		if d := time.Since(start); err != nil || codeOf(answer) != tpm2.TPMRCNVRate || d < patience || d > patience+2*longestPause || len(f.sent) > 50 {
			t.Errorf("for ever: %x, %v after %v and %d commands", answer, err, d, len(f.sent))
		}
	})
}

// TestGivenUp: who asks the program to end need not wait for a TPM that hangs; one that answers may clean up.
func TestGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fakeTPM{codes: []tpm2.TPMRC{0, 0}, hangs: true}
	p := newPatient(ctx, f)
	if _, err := p.Send(nil); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := p.Send(nil); err != nil {
		t.Errorf("to clean up: %v", err)
	}
	start := time.Now()
	for range 2 {
		if _, err := p.Send(nil); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("it hangs: %v", err)
		}
	}
	if err := p.Close(); err != nil || len(f.sent) != 3 {
		t.Errorf("%v, %d commands", err, len(f.sent))
	}
	if d := time.Since(start); d > 10*grace {
		t.Errorf("it took %v", d)
	}
}
