package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/ocsp"
)

// stapler fetches OCSP answers about one certificate.
type stapler struct {
	cert, issuer *x509.Certificate
	url          string
	out          string
	then         string // shell command to run after each new file
	now          func() time.Time
}

// Staple is what was fetched.
type Staple struct {
	Serial     string     `json:"serial"`
	Status     string     `json:"status"`
	Revoked    *time.Time `json:"revoked,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	ThisUpdate time.Time  `json:"this_update"`
	NextUpdate time.Time  `json:"next_update"`
	File       string     `json:"file,omitempty"`
}

// errNotStapled is an answer that is true and of no use as a staple.
var errNotStapled = errors.New("the responder does not know this certificate")

func (a *app) ocspCommand() *cobra.Command {
	return group("ocsp", "OCSP answers", a.ocspStaple())
}

func (a *app) ocspStaple() *cobra.Command {
	s := stapler{now: a.now}
	var certFile, issuerFile string
	var watch bool
	cmd := withJSON(&cobra.Command{
		Use:   "staple --cert FILE [--issuer FILE] [--out FILE]",
		Short: "Fetch a certificate's OCSP answer for a TLS server to staple",
		Long: `Ask the OCSP responder that a certificate names about it, verify the answer, and write
it to a file (DER), at once whole. nginx takes it as ssl_stapling_file, HAProxy beside the
certificate as .ocsp, stunnel and openssl s_server as -status_file. A revoked certificate's
answer is written too, and the exit status is 1. An answer that is older than the one in
the file (thisUpdate, then producedAt) does not replace it, and the exit status is 1.

With --watch it stays, fetches anew when half of the answer's life is over, and runs
--then after each new file. While the responder is away, the file stays as it is.`,
		Example: `  deviceca ocsp staple --cert fullchain.pem --out staple.der
  deviceca ocsp staple --cert cert.pem --issuer issuing.crt --out staple.der --watch --then 'nginx -s reload'`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "cert"); err != nil {
				return err
			}
			if watch && s.out == "" {
				return usagef("--watch writes a file: name it with --out")
			}
			if err := s.read(certFile, issuerFile); err != nil {
				return err
			}
			o := a.output(cmd)
			if !watch {
				staple, err := s.fetch(cmd.Context())
				if err != nil {
					return err
				}
				if err := o.staple(staple); err != nil {
					return err
				}
				if staple.Status != ocsp.Good.String() {
					return errReported
				}
				return nil
			}
			return s.watch(cmd.Context(), o)
		},
	})
	f := cmd.Flags()
	f.StringVar(&certFile, "cert", "", "certificate, PEM or DER; the issuer's may follow it")
	f.StringVar(&issuerFile, "issuer", "", "certificate of its issuer, if --cert does not hold it")
	f.StringVar(&s.url, "url", "", "responder (default: what the certificate says)")
	f.StringVar(&s.out, "out", "", "file for the answer")
	f.BoolVar(&watch, "watch", false, "stay, and keep the file current")
	f.StringVar(&s.then, "then", "", "shell command to run after each new file")
	return cmd
}

func (o output) staple(s *Staple) error {
	return o.print(s, func(fact func(name, value string)) {
		fact("serial", s.Serial)
		fact("status", s.Status)
		if s.Revoked != nil {
			fact("revoked", instant(*s.Revoked))
			fact("reason", s.Reason)
		}
		fact("this update", o.when(s.ThisUpdate))
		fact("next update", o.when(s.NextUpdate))
		fact("file", s.File)
	})
}

// read finds the certificate, its issuer, and the responder.
func (s *stapler) read(certFile, issuerFile string) error {
	chain, err := readCerts(certFile)
	if err != nil {
		return err
	}
	s.cert = chain[0]
	candidates := chain[1:]
	if issuerFile != "" {
		more, err := readCerts(issuerFile)
		if err != nil {
			return err
		}
		candidates = append(candidates, more...)
	}
	if s.issuer = issuerAmong(s.cert, candidates); s.issuer == nil {
		return hinted(fmt.Errorf("the certificate of %s is not there", s.cert.Issuer), "give it with --issuer")
	}
	if s.url == "" {
		if len(s.cert.OCSPServer) == 0 {
			return hinted(errors.New("the certificate names no OCSP responder"), "name one with --url")
		}
		s.url = s.cert.OCSPServer[0]
	}
	return nil
}

// fetch asks, verifies and writes. It asks with POST: no cache on the way answers that.
func (s *stapler) fetch(ctx context.Context) (*Staple, error) {
	request, err := ocsp.NewRequest(s.issuer, ocsp.SHA1, nil, s.cert.SerialNumber)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", s.url, resp.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, ocsp.MaxResponse+1))
	if err != nil {
		return nil, err
	}
	answer, err := ocsp.ParseResponse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.url, err)
	}
	if err := ocsp.Verify(answer, s.issuer, s.now()); err != nil {
		return nil, fmt.Errorf("%s: %w", s.url, err)
	}
	single := answer.Find(s.issuer, s.cert.SerialNumber)
	if single == nil || single.Status == ocsp.Unknown {
		return nil, errNotStapled
	}
	staple := &Staple{Serial: serialText(s.cert.SerialNumber), Status: single.Status.String(), ThisUpdate: single.ThisUpdate, NextUpdate: single.NextUpdate, File: s.out}
	if single.Status == ocsp.Revoked {
		staple.Revoked, staple.Reason = &single.RevokedAt, ca.ReasonName(single.Reason)
	}
	if s.out == "" {
		return staple, nil
	}
	if err := s.replace(raw, answer, single); err != nil {
		return nil, err
	}
	if s.then != "" {
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", s.then)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("the answer was written, but %q: %w", s.then, err)
		}
	}
	return staple, nil
}

// replace writes an answer, unless the file holds a newer one about the same certificate. Only one
// that verifies counts: other content is replaced.
func (s *stapler) replace(raw []byte, answer *ocsp.Response, single *ocsp.SingleResponse) error {
	unlock, err := lockFile(s.out)
	if err != nil {
		return err
	}
	defer unlock()
	if old, oldSingle := s.held(); old != nil && olderAnswer(answer, single, old, oldSingle) {
		return fmt.Errorf("the responder's answer of %s, made at %s, is older than that in %s, of %s, made at %s, and does not replace it",
			instant(single.ThisUpdate), instant(answer.ProducedAt), s.out, instant(oldSingle.ThisUpdate), instant(old.ProducedAt))
	}
	return writeFile(s.out, raw, 0o644)
}

// held is the answer in the file, and what it says of the certificate; nil if there is none that verified in its time.
func (s *stapler) held() (*ocsp.Response, *ocsp.SingleResponse) {
	raw, err := os.ReadFile(s.out)
	if err != nil {
		return nil, nil
	}
	answer, err := ocsp.ParseResponse(raw)
	if err != nil {
		return nil, nil
	}
	single := answer.Find(s.issuer, s.cert.SerialNumber)
	if single == nil || ocsp.Verify(answer, s.issuer, earliest(s.now(), single.NextUpdate)) != nil {
		return nil, nil
	}
	return answer, single
}

// Waits of watch.
const (
	stapleRetry  = 10 * time.Second
	stapleAtMost = time.Hour // a revocation is stapled after that long at the latest
)

// watch keeps the file current until ctx ends.
func (s *stapler) watch(ctx context.Context, o output) error {
	for {
		wait := stapleRetry
		staple, err := s.fetch(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			o.note("%s: %s; trying again in %s, the file stays", instant(s.now()), err, wait)
		default:
			o.now = s.now()
			if err := o.staple(staple); err != nil {
				return err
			}
			half := staple.ThisUpdate.Add(staple.NextUpdate.Sub(staple.ThisUpdate) / 2)
			wait = min(max(half.Sub(s.now()), stapleRetry), stapleAtMost)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
