package main

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/ocsp"
	"github.com/deviceca/deviceca/pack"
)

var oidNoRevAvail = asn1.ObjectIdentifier{2, 5, 29, 56}

func isNoRevAvail(e pkix.Extension) bool { return e.Id.Equal(oidNoRevAvail) }

// findings asks every source given. An expired one is verified for the end of its
// life, and says what it said then: what a stale good is worth is for the rule.
func (in *verifyInput) findings(ctx context.Context, leaf, issuer *x509.Certificate, now time.Time) (all []finding, err error) {
	for _, s := range []struct {
		flag, file string
		read       func(ctx context.Context, leaf, issuer *x509.Certificate, now time.Time) (finding, error)
	}{{"--pack", in.pack, in.byPack}, {"--crl", in.crl, in.byCRL}, {"--staple", in.staple, in.byStaple}} {
		if s.file == "" {
			continue
		}
		f, err := s.read(ctx, leaf, issuer, now)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.flag, err)
		}
		all = append(all, f)
	}
	return all, nil
}

// earliest is now, or the end of what is verified if that is over.
func earliest(now, end time.Time) time.Time {
	if end.Before(now) {
		return end
	}
	return now
}

func (in *verifyInput) byPack(_ context.Context, leaf, issuer *x509.Certificate, now time.Time) (finding, error) {
	f := finding{Source: "pack"}
	full, err := os.ReadFile(in.pack)
	if err != nil {
		return f, err
	}
	var deltas [][]byte
	for _, file := range in.deltas {
		raw, err := os.ReadFile(file)
		if err != nil {
			return f, err
		}
		deltas = append(deltas, raw)
	}
	floors, err := readFloors(in.floor)
	if err != nil {
		return f, err
	}
	issuerHash := pack.IssuerHash(issuer)
	name := hex.EncodeToString(issuerHash[:])
	p, err := pack.Verify(full, pack.Options{Issuer: issuer, Floor: floors[name]}, deltas...)
	if err != nil {
		return f, err
	}
	if in.floor != "" && p.Floor().Compare(floors[name]) > 0 {
		floors[name] = p.Floor()
		raw, err := json.MarshalIndent(floors, "", "  ")
		if err != nil {
			return f, err
		}
		if err := writeFile(in.floor, append(raw, '\n'), 0o644); err != nil {
			return f, err
		}
	}
	h, hash := p.Header(), p.Hash()
	f.ThisUpdate, f.NextUpdate, f.State = h.ThisUpdate, h.NextUpdate, hex.EncodeToString(hash[:])
	status, err := p.Certificate(leaf, now)
	if errors.Is(err, pack.ErrIssuer) {
		return f, err
	}
	f.Status = status.String()
	switch {
	case status == pack.Expired:
		f.Status, f.Note = "unknown", "the pack no longer tells of certificates that old"
	case status == pack.Unknown:
		f.Note = "the certificate is newer than the pack"
	case errors.Is(err, pack.ErrNotYet) && status != pack.Revoked:
		f.Status, f.Note = "unknown", err.Error()
	case err != nil:
		f.Note = err.Error()
	}
	return f, nil
}

// readFloors reads the newest state seen of each CA, by the hash of its key.
func readFloors(file string) (map[string]pack.Floor, error) {
	floors := map[string]pack.Floor{}
	if file == "" {
		return floors, nil
	}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return floors, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &floors)
	}
	if err != nil {
		return nil, fmt.Errorf("the floor file %s: %w", file, err)
	}
	return floors, nil
}

func (in *verifyInput) byCRL(ctx context.Context, leaf, issuer *x509.Certificate, now time.Time) (finding, error) {
	f := finding{Source: "CRL"}
	read := func(file string) (*crl.List, error) {
		list, err := readCRL(ctx, file)
		if err != nil {
			return nil, err
		}
		if err := list.Verify(issuer, earliest(now, list.NextUpdate)); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if list.NextUpdate.Before(now) {
			f.Note = file + " ended at " + instant(list.NextUpdate)
		}
		return list, nil
	}
	list, err := read(in.crl)
	if err != nil {
		return f, err
	}
	if !list.Covers(leaf) {
		return f, fmt.Errorf("%s does not cover this certificate; its own is at %v", in.crl, leaf.CRLDistributionPoints)
	}
	f.ThisUpdate, f.NextUpdate = list.ThisUpdate, list.NextUpdate
	var delta *crl.List
	if in.crlDelta != "" {
		if delta, err = read(in.crlDelta); err != nil {
			return f, err
		}
		f.ThisUpdate, f.NextUpdate = delta.ThisUpdate, earliest(delta.NextUpdate, list.NextUpdate)
	}
	line, err := crl.Lookup(list, delta, leaf.SerialNumber)
	if err != nil {
		return f, err
	}
	f.Status = "good"
	if line != nil {
		f.Status, f.Revoked, f.Reason = "revoked", &line.Revoked, reasonText(line.Reason)
	}
	return f, nil
}

func (in *verifyInput) byStaple(ctx context.Context, leaf, issuer *x509.Certificate, now time.Time) (finding, error) {
	f := finding{Source: "staple"}
	raw, err := readSource(ctx, in.staple)
	if err != nil {
		return f, err
	}
	answer, err := ocsp.ParseResponse(raw)
	if err != nil {
		return f, err
	}
	single := answer.Find(issuer, leaf.SerialNumber)
	if answer.Status == ocsp.Successful && single == nil {
		return f, errors.New("it is about another certificate")
	}
	at := now
	if single != nil && !single.NextUpdate.IsZero() {
		at = earliest(now, single.NextUpdate)
	}
	if err := ocsp.Verify(answer, issuer, at); err != nil {
		return f, err
	}
	f.ThisUpdate, f.NextUpdate, f.Status = single.ThisUpdate, single.NextUpdate, single.Status.String()
	if f.NextUpdate.Before(now) {
		f.Note = "it ended at " + instant(f.NextUpdate)
	}
	if single.Status == ocsp.Revoked {
		f.Revoked, f.Reason = &single.RevokedAt, reasonText(single.Reason)
	}
	return f, nil
}
