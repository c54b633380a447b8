package main

import (
	"context"
	"crypto"
	"database/sql"
	"encoding/asn1"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/ocsp"
	"github.com/deviceca/deviceca/pack"
	"github.com/deviceca/deviceca/pack/publisher"
)

// cpu is the CPU time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cost runs f and tells what it took.
func cost(f func() error) (wall, used time.Duration, err error) {
	before, begun := cpu(), time.Now()
	err = f()
	return time.Since(begun), cpu() - before, err
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1000) }

// ledger makes a database with n certificates, all revoked, straight into its tables.
func ledger(dir string, n int) (*store.Store, error) {
	path := filepath.Join(dir, fmt.Sprintf("ledger-%d.db", n))
	s, err := store.Open(context.Background(), path, store.Options{})
	if err != nil {
		return nil, err
	}
	const spare = 1000 // to be revoked while measuring
	if _, err := s.ReserveIndexes(context.Background(), "issuing-1", n+spare); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		return nil, err
	}
	cert, err := tx.Prepare(`INSERT INTO certificate (id, serial, issuer, key_id, profile, level, protocol, requester, actor, issued, not_before, not_after, request, decision, der)
		VALUES (?, ?, 'issuing-1', ?, 'device', 'software', 'est', '', '', 0, 0, ?, x'00', '{}', zeroblob(600))`)
	if err != nil {
		return nil, err
	}
	rev, err := tx.Prepare(`INSERT INTO revocation (sequence, certificate, issuer, serial, not_after, revoked, reason) VALUES (?, ?, 'issuing-1', ?, ?, ?, 4)`)
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixMicro()
	end := now + int64(24*time.Hour/time.Microsecond)
	for i := range n + spare {
		serial := serialOf(uint64(i))
		if _, err := cert.Exec(i+1, serial[:], serial[:], end); err != nil {
			return nil, err
		}
		if i < n {
			if _, err := rev.Exec(i+1, i+1, serial[:], end, now); err != nil {
				return nil, err
			}
		}
	}
	if _, err := tx.Exec("UPDATE counter SET value = ? WHERE name = 'revocation'", n); err != nil {
		return nil, err
	}
	return s, tx.Commit()
}

// IssueSigner is part of publisher.Certifier.
func (a *authority) IssueSigner(_ context.Context, _ string, pub crypto.PublicKey) ([]byte, error) {
	return a.delegate(pub, nil, []asn1.ObjectIdentifier{pack.SigningEKU()})
}

// crl builds one complete list: from memory, which is the builder alone, and from the ledger.
func (b *bench) crl() error {
	a, err := openAuthority(b.dir)
	if err != nil {
		return err
	}
	s, err := ledger(b.dir, b.revoked)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Printf("### A complete CRL\n\n")
	head("entries from", "entries", "octets", "wall ms", "CPU ms")
	now := time.Now()
	for _, c := range []struct {
		name    string
		entries iter.Seq2[crl.Entry, error]
	}{
		{"memory", func(yield func(crl.Entry, error) bool) {
			for i := range uint64(b.revoked) {
				if !yield(crl.Entry{Serial: serialOf(i), Revoked: now, Reason: 4}, nil) {
					return
				}
			}
		}},
		{"the ledger", s.Journal().Revoked(context.Background(), "issuing-1", crl.Query{To: math.MaxUint64})},
	} {
		f, err := os.Create(filepath.Join(b.dir, "bench.crl"))
		if err != nil {
			return err
		}
		var built crl.Built
		wall, used, err := cost(func() (err error) {
			built, err = crl.Build(f, &crl.Template{Issuer: a.cert, Number: 1, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}, a.key, c.entries)
			return err
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		row(c.name, built.Entries, built.Size, ms(wall), ms(used))
	}
	return nil
}

// change is what one revocation more costs, each publication by itself, by how many there are.
func (b *bench) change() error {
	a, err := openAuthority(b.dir)
	if err != nil {
		return err
	}
	fmt.Printf("### One revocation more\n\nCPU ms, median of 20: making it durable; signing its OCSP answer anew; a round of the CRL publisher (two deltas); the next state of the pack and its delta.\n\n")
	head("revoked before", "revoke", "OCSP", "delta CRLs", "delta pack", "first publication of all, s")
	for n := 1000; n <= b.revoked; n *= 10 {
		if n == 10_000 {
			continue
		}
		if err := b.oneMore(a, n); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) oneMore(a *authority, n int) error {
	ctx, quiet := context.Background(), slog.New(slog.DiscardHandler)
	dir := filepath.Join(b.dir, fmt.Sprint(n))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	s, err := ledger(dir, n)
	if err != nil {
		return err
	}
	defer s.Close()
	lists, err := crl.NewPublisher(crl.Options{Source: s.Journal(), Dir: filepath.Join(dir, "crl"), URL: "http://ca.example", Log: quiet, Poll: 5 * time.Millisecond},
		crl.Issuer{Name: "issuing-1", Cert: a.cert, Key: a.key})
	if err != nil {
		return err
	}
	packs, err := publisher.New(publisher.Options{Source: store.Packs{Journal: s.Journal()}, Certifier: a, Dir: filepath.Join(dir, "pack"), Log: quiet},
		publisher.Issuer{Name: "issuing-1", Cert: a.cert})
	if err != nil {
		return err
	}
	responder, err := ocsp.New(ocsp.Options{Source: s.Journal(), Log: quiet})
	if err != nil {
		return err
	}
	if err := responder.AddIssuer("issuing-1", a.cert, ocsp.NewDelegate(ocsp.DelegateOptions{Issuer: "issuing-1", IssuerCert: a.cert, Certifier: a, Log: quiet})); err != nil {
		return err
	}
	first, _, err := cost(func() error { return errors.Join(lists.Publish(ctx, ""), packs.Publish(ctx, "")) })
	if err != nil {
		return err
	}
	columns := make([][]time.Duration, 4)
	for i := range 20 {
		serial := serialOf(uint64(n + i))
		if err := responder.Presign(ctx, "issuing-1", serial); err != nil {
			return err
		}
		for at, step := range []func() error{
			func() error {
				_, err := s.Revoke(ctx, []ca.Serial{serial}, ca.Revocation{Time: time.Now(), Reason: 4}, ca.Event{Time: time.Now(), Kind: ca.EventRevoked})
				return err
			},
			func() error { return responder.Invalidate(ctx, "issuing-1", serial) },
			func() error { return lists.Refresh(ctx, "issuing-1") },
			func() error { return packs.Refresh(ctx, "issuing-1") },
		} {
			_, used, err := cost(step)
			if err != nil {
				return err
			}
			columns[at] = append(columns[at], used)
		}
	}
	cells := []any{n}
	for _, c := range columns {
		slices.Sort(c)
		cells = append(cells, ms(c[len(c)/2]))
	}
	row(append(cells, fmt.Sprintf("%.1f", first.Seconds()))...)
	return nil
}

// pack makes and reads a pack of a universe with 1 % revoked.
func (b *bench) pack() error {
	a, err := openAuthority(b.dir)
	if err != nil {
		return err
	}
	by, err := pack.NewSigner(a.cert, a.key, nil)
	if err != nil {
		return err
	}
	now := time.Now()
	h := pack.Header{Issuer: pack.IssuerHash(a.cert), Sequence: 1, ThisUpdate: now, NextUpdate: now.Add(24 * time.Hour), Size: uint64(b.universe)}
	revoked := func(yield func(uint64) bool) {
		for i := range uint64(b.universe) {
			if serialOf(i)[18] < 3 && serialOf(i)[17] < 219 && !yield(i) { // 1 %, scattered
				return
			}
		}
	}
	indexes := slices.Collect(revoked)
	var state *pack.State
	var raw []byte
	build, _, err := cost(func() (err error) {
		if state, err = pack.NewState(h, slices.Values(indexes)); err == nil {
			raw, err = state.Sign(by, pack.Hash{})
		}
		return err
	})
	if err != nil {
		return err
	}
	var p *pack.Pack
	load, _, err := cost(func() (err error) {
		p, err = pack.Verify(raw, pack.Options{Issuer: a.cert, Limits: pack.Limits{Bytes: 1 << 30, Revoked: 1 << 30}})
		return err
	})
	if err != nil {
		return err
	}
	const asks = 1_000_000
	look, _, _ := cost(func() error {
		for i := range uint64(asks) {
			p.Index(i * 7919 % uint64(b.universe))
		}
		return nil
	})
	fmt.Printf("### A revocation pack\n\n")
	head("certificates", "revoked", "octets", "octets per revoked", "build ms", "verify and load ms", "look-up ns")
	row(b.universe, len(indexes), len(raw), float64(len(raw))/float64(len(indexes)), ms(build), ms(load), look.Nanoseconds()/asks)
	return nil
}
