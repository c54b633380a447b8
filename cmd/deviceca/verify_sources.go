package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/ocsp"
	"github.com/deviceca/deviceca/pack"
)

// sources are the packs, CRLs and OCSP answers given. Each is used for the certificates
// whose issuer it is of.
type sources struct {
	floor   string
	packs   []*source
	deltas  []*source
	lists   []*source // complete CRLs
	changes []*source // delta CRLs
	staples []*source
}

// source is one of them, its signature not yet verified.
type source struct {
	flag, file string
	raw        []byte
	pack       pack.Hash // of a pack: the CA that it says it is of
	list       *crl.List
	answer     *ocsp.Response
	used       bool
	unused     string // why not
}

// fault is an error about a source.
func (s *source) fault(err error) error { return fmt.Errorf("%s %s: %w", s.flag, s.file, err) }

// sources reads what was given. A file with several CRLs in PEM, or packs, is as many sources. An error that
// is an [inputError] is about what a file holds.
func (in *verifyInput) sources(ctx context.Context) (*sources, error) {
	all := &sources{floor: in.floor}
	read := func(flag string, files []string, take func(s *source) error) error {
		for _, file := range files {
			s := &source{flag: flag, file: file}
			var err error
			if s.raw, err = readSource(ctx, file); err != nil {
				return err
			}
			if err := take(s); err != nil {
				return &inputError{s.fault(err)}
			}
		}
		return nil
	}
	takeList := func(s *source) error {
		lists, err := parseCRLs(s.raw)
		if err != nil {
			return err
		}
		for _, list := range lists {
			one := &source{flag: s.flag, file: s.file, list: list}
			if list.Base == nil {
				all.lists = append(all.lists, one)
			} else {
				all.changes = append(all.changes, one)
			}
		}
		return nil
	}
	err := read("--pack", in.packs, func(s *source) error {
		packs, err := pack.Split(s.raw)
		if err != nil {
			return err
		}
		for _, raw := range packs {
			one := &source{flag: s.flag, file: s.file, raw: raw}
			all.packs = append(all.packs, one)
			if one.pack, err = pack.IssuerOf(raw); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = read("--delta", in.deltas, func(s *source) error { all.deltas = append(all.deltas, s); return nil })
	}
	if err == nil {
		err = read("--crl", in.crls, takeList)
	}
	if err == nil {
		err = read("--crl-delta", in.crlDeltas, takeList)
	}
	if err == nil {
		err = read("--staple", in.staples, func(s *source) (err error) {
			all.staples = append(all.staples, s)
			if s.answer, err = ocsp.ParseResponse(s.raw); err == nil && s.answer.Status != ocsp.Successful {
				err = fmt.Errorf("the responder said %s", s.answer.Status)
			}
			return err
		})
	}
	return all, err
}

// inputError says that a file holds no status that can be read.
type inputError struct{ error }

// left lists what no certificate had a use for, and why.
func (all *sources) left() (notes []string) {
	for _, kind := range [][]*source{all.packs, all.deltas, all.lists, all.changes, all.staples} {
		for _, s := range kind {
			if !s.used {
				notes = append(notes, fmt.Sprintf("%s %s: %s", s.flag, s.file, s.unused))
			}
		}
	}
	return notes
}

// findings asks every source that is of issuer about cert. Of several of one kind and scope the
// newest counts. An expired one is verified for the end of its life, and says what it said
// then: what a stale good is worth is for the rule. It is an error if one does not verify.
func (all *sources) findings(cert, issuer *x509.Certificate, now time.Time) (found []finding, err error) {
	for _, ask := range []func(cert, issuer *x509.Certificate, now time.Time) ([]finding, error){all.byPack, all.byCRL, all.byStaple} {
		f, err := ask(cert, issuer, now)
		if err != nil {
			return nil, err
		}
		found = append(found, f...)
	}
	for i := range found {
		found[i].Certificate = cert.Subject.String()
	}
	return found, nil
}

// earliest is now, or the end of what is verified if that is over.
func earliest(now, end time.Time) time.Time {
	if end.Before(now) {
		return end
	}
	return now
}

func (all *sources) byPack(cert, issuer *x509.Certificate, now time.Time) ([]finding, error) {
	var newest *pack.Pack
	for _, s := range all.packs {
		if s.pack != pack.IssuerHash(issuer) {
			s.unused = "it is of another CA"
			continue
		}
		p, err := all.open(s, issuer)
		if err != nil {
			return nil, err
		}
		if newest == nil || p.Floor().Compare(newest.Floor()) > 0 {
			newest = p
		}
	}
	if newest == nil {
		return nil, nil
	}
	if err := raiseFloor(all.floor, newest); err != nil {
		return nil, fmt.Errorf("--pack: %w", err)
	}
	f := finding{Source: "pack"}
	h, hash := newest.Header(), newest.Hash()
	f.ThisUpdate, f.NextUpdate, f.State = h.ThisUpdate, h.NextUpdate, hex.EncodeToString(hash[:])
	status, err := newest.Certificate(cert, now)
	if errors.Is(err, pack.ErrIssuer) {
		return nil, err
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
	return []finding{f}, nil
}

// open verifies a pack, and the deltas that follow it in the order given.
func (all *sources) open(s *source, issuer *x509.Certificate) (*pack.Pack, error) {
	s.used = true
	p, err := pack.Verify(s.raw, pack.Options{Issuer: issuer})
	if err != nil {
		return nil, s.fault(err)
	}
	for _, delta := range all.deltas {
		next, err := p.Apply(delta.raw)
		if errors.Is(err, pack.ErrParent) {
			delta.unused = err.Error()
			continue
		}
		delta.used = true
		if err != nil {
			return nil, delta.fault(err)
		}
		p = next
	}
	return p, nil
}

// stray is the first delta that follows none of the packs, all of which were opened.
func (all *sources) stray() error {
	for _, s := range all.packs {
		if !s.used {
			return nil // it may follow that one
		}
	}
	for _, delta := range all.deltas {
		if !delta.used && len(all.packs) > 0 {
			delta.used = true
			return delta.fault(pack.ErrParent)
		}
	}
	return nil
}

// byCRL looks the certificate up in the newest list of each scope that holds it, completed by its newest delta.
func (all *sources) byCRL(cert, issuer *x509.Certificate, now time.Time) (found []finding, err error) {
	lists, err := verified(all.lists, issuer, now)
	if err != nil {
		return nil, err
	}
	deltas, err := verified(all.changes, issuer, now)
	if err != nil {
		return nil, err
	}
	byScope := map[string]*source{}
	for _, s := range lists {
		if !s.list.Covers(cert) {
			s.unused = "its scope holds no certificate of the path"
			continue
		}
		s.used = true
		if before := byScope[string(s.list.Point)]; before == nil || newer(s.list, before.list) {
			byScope[string(s.list.Point)] = s
		}
	}
	for _, s := range lists { // in the order given
		if byScope[string(s.list.Point)] != s {
			continue
		}
		f, err := lookUp(s, deltas, cert, now)
		if err != nil {
			return nil, err
		}
		found = append(found, f)
	}
	return found, nil
}

// verified are the lists that say they are of issuer. They must be.
func verified(lists []*source, issuer *x509.Certificate, now time.Time) (ours []*source, err error) {
	for _, s := range lists {
		if err := s.list.IsOf(issuer); err != nil {
			s.unused = cmp.Or(s.unused, "it is of another CA or key of it, "+nameText(s.list.Issuer))
			continue
		}
		if err := s.list.Verify(issuer, earliest(now, s.list.NextUpdate)); err != nil {
			s.used = true
			return nil, s.fault(err)
		}
		s.unused = "there is no complete CRL that it completes"
		ours = append(ours, s)
	}
	return ours, nil
}

// newer orders lists of one CA and scope: by time, then by number.
func newer(a, b *crl.List) bool {
	if !a.ThisUpdate.Equal(b.ThisUpdate) || a.Number == nil || b.Number == nil {
		return a.ThisUpdate.After(b.ThisUpdate)
	}
	return a.Number.Cmp(b.Number) > 0
}

func lookUp(complete *source, deltas []*source, cert *x509.Certificate, now time.Time) (finding, error) {
	list := complete.list
	f := finding{Source: "CRL", ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate, Status: "good"}
	if list.NextUpdate.Before(now) {
		f.Note = complete.file + " ended at " + instant(list.NextUpdate)
	}
	var delta *source
	for _, d := range deltas {
		if !bytes.Equal(d.list.Point, list.Point) {
			continue
		}
		d.used = true
		if delta == nil || newer(d.list, delta.list) {
			delta = d
		}
	}
	var change *crl.List
	if delta != nil {
		change = delta.list
		f.ThisUpdate, f.NextUpdate = change.ThisUpdate, earliest(change.NextUpdate, list.NextUpdate)
		if change.NextUpdate.Before(now) {
			f.Note = delta.file + " ended at " + instant(change.NextUpdate)
		}
	}
	line, err := crl.Lookup(list, change, cert.SerialNumber)
	if err != nil {
		return f, complete.fault(err)
	}
	if line != nil {
		f.Status, f.Revoked, f.Reason = "revoked", &line.Revoked, reasonText(line.Reason)
	}
	return f, nil
}

func (all *sources) byStaple(cert, issuer *x509.Certificate, now time.Time) ([]finding, error) {
	var newest *source
	var single *ocsp.SingleResponse
	for _, s := range all.staples {
		one := s.answer.Find(issuer, cert.SerialNumber)
		if one == nil {
			s.unused = "it is about another certificate"
			continue
		}
		s.used = true
		at := now
		if !one.NextUpdate.IsZero() {
			at = earliest(now, one.NextUpdate)
		}
		if err := ocsp.Verify(s.answer, issuer, at); err != nil {
			return nil, s.fault(err)
		}
		if newest == nil || olderAnswer(newest.answer, single, s.answer, one) {
			newest, single = s, one
		}
	}
	if newest == nil {
		return nil, nil
	}
	f := finding{Source: "staple", ThisUpdate: single.ThisUpdate, NextUpdate: single.NextUpdate, Status: single.Status.String()}
	if f.NextUpdate.Before(now) {
		f.Note = "it ended at " + instant(f.NextUpdate)
	}
	if single.Status == ocsp.Revoked {
		f.Revoked, f.Reason = &single.RevokedAt, reasonText(single.Reason)
	}
	return []finding{f}, nil
}

// olderAnswer reports whether answer a is older than b: by thisUpdate of what they say of the
// certificate, then by producedAt.
func olderAnswer(a *ocsp.Response, x *ocsp.SingleResponse, b *ocsp.Response, y *ocsp.SingleResponse) bool {
	if !x.ThisUpdate.Equal(y.ThisUpdate) {
		return x.ThisUpdate.Before(y.ThisUpdate)
	}
	return a.ProducedAt.Before(b.ProducedAt)
}
