package tpm

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// patient sends a command again that the TPM had no time for, and gives up one that it does not answer. The kernel does the former
// for device files; nobody does for sockets.
type patient struct {
	transport.TPMCloser
	ctx  context.Context
	hung error // why a command was given up: another would get its answer
}

// Bounds of patience.
const (
	firstPause   = 20 * time.Millisecond
	longestPause = 2 * time.Second
	patience     = time.Minute     // for a TPM that tests itself, or must not write its memory so often
	grace        = 2 * time.Second // for a command in progress, and for those that clean up, once the context has ended
)

func newPatient(ctx context.Context, t transport.TPMCloser) transport.TPMCloser {
	if ctx == nil {
		ctx = context.Background()
	}
	return &patient{TPMCloser: t, ctx: ctx}
}

// later are the answers that mean: nothing was done, send it again.
var later = []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate}

// Send implements transport.TPM.
func (p *patient) Send(command []byte) ([]byte, error) {
	for start, pause := time.Now(), firstPause; ; pause = min(2*pause, longestPause) {
		answer, err := p.once(command)
		if err != nil || len(answer) < 10 || !slices.Contains(later, tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:]))) || time.Since(start) > patience {
			return answer, err
		}
		select {
		case <-p.ctx.Done():
			return answer, nil
		case <-time.After(pause):
		}
	}
}

func (p *patient) once(command []byte) ([]byte, error) {
	if p.hung != nil {
		return nil, p.hung
	}
	type answer struct {
		octets []byte
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		octets, err := p.TPMCloser.Send(command)
		answered <- answer{octets, err}
	}()
	select {
	case a := <-answered:
		return a.octets, a.err
	case <-p.ctx.Done():
	}
	select {
	case a := <-answered:
		return a.octets, a.err
	case <-time.After(grace):
		p.hung = fmt.Errorf("the TPM does not answer, and is given up: %w", context.Cause(p.ctx))
		return nil, p.hung
	}
}

// Close implements transport.TPMCloser. A TPM that hangs may hang in this too.
func (p *patient) Close() error {
	if p.hung != nil {
		go p.TPMCloser.Close()
		return nil
	}
	return p.TPMCloser.Close()
}
