package publisher

import (
	"cmp"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/pack"
)

// Full packs lie in Dir/NAME/HASH.cbor, so that after a restart they are
// parents again, and the newest as Dir/NAME.cbor as well. They are signed: what
// is read back is verified like anyone's.

const suffix = ".cbor"

func (p *Publisher) load(is *publication) error {
	if is.loaded {
		return nil
	}
	dir := filepath.Join(p.opts.Dir, is.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var found []*full
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !strings.HasSuffix(e.Name(), suffix) {
			os.Remove(path) // what a crash left half-written
			continue
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		v, err := pack.Verify(raw, pack.Options{Issuer: is.Cert, Limits: limits})
		if err != nil {
			p.opts.Log.Warn("a revocation pack kept from before cannot be used; it is removed", "issuer", is.Name, "file", path, "error", err)
			os.Remove(path)
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		h := v.State.Header() // a copied file may have a date of its own
		made := info.ModTime().Truncate(time.Second)
		if made.Before(h.ThisUpdate) || made.Sub(h.ThisUpdate) > p.opts.Every {
			made = h.ThisUpdate
		}
		found = append(found, &full{state: v.State, bytes: raw, made: made})
	}
	slices.SortFunc(found, func(a, b *full) int {
		x, y := a.state.Header(), b.state.Header()
		return cmp.Or(cmp.Compare(x.Epoch, y.Epoch), cmp.Compare(x.Sequence, y.Sequence))
	})
	is.mu.Lock()
	defer is.mu.Unlock()
	for _, f := range found {
		is.full = f
		is.past[f.state.Hash()] = f.state
		is.order = append(is.order, f.state.Hash())
		is.kept = append(is.kept, f.state.Hash())
	}
	is.loaded = true
	return nil
}

// limits are for packs of our own.
var limits = pack.Limits{Bytes: 1 << 30, Revoked: 1 << 30}

func (p *Publisher) file(is *publication, h pack.Hash) string {
	return filepath.Join(p.opts.Dir, is.Name, hex.EncodeToString(h[:])+suffix)
}

func (p *Publisher) save(is *publication, f *full) error {
	if err := replace(p.file(is, f.state.Hash()), f.bytes); err != nil {
		return err
	}
	return replace(filepath.Join(p.opts.Dir, is.Name+suffix), f.bytes)
}

// prune deletes the files of full packs that are no longer kept.
func (p *Publisher) prune(is *publication) error {
	entries, err := os.ReadDir(filepath.Join(p.opts.Dir, is.Name))
	if err != nil || len(entries) <= len(is.kept) {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(p.opts.Dir, is.Name, e.Name())
		if !slices.ContainsFunc(is.kept, func(h pack.Hash) bool { return p.file(is, h) == path }) {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// replace writes a file beside path and moves it there when it is whole and on disk.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // once moved, there is nothing of that name
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
