package crl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Whole is the scope of everything that an issuer issued, in place of a partition.
const Whole = -1

func scopeName(id int) string {
	if id == Whole {
		return "all"
	}
	return strconv.Itoa(id)
}

// state is what must be known after a restart, kept beside the lists as
// NAME.json. Without it everything is published anew.
type state struct {
	Number int64          `json:"number"` // of the latest round that made complete lists
	Scopes map[int]*scope `json:"scopes"`
}

// scope is one complete list with its delta.
type scope struct {
	Bases     []base    `json:"bases"` // complete lists that deltas complete, oldest first
	Scheduled base      `json:"scheduled"`
	Retired   time.Time `json:"retired,omitzero"` // when all in it had expired

	// Of the delta. They start from nothing: after a restart, each is made anew.
	sequence int64
	deltaDue time.Time

	past bool // all in it has expired: the next scheduled list is its last
}

func (s *scope) scheduled(now time.Time, interval time.Duration) bool {
	return !now.Before(s.Scheduled.made().Add(interval))
}

// maxBases bounds how many scheduled complete lists a delta completes.
const maxBases = 100

// add makes b the current complete list. An extra one takes the place of the extra one
// before; the others stay while they are in force, since whoever fetched one goes on with deltas. After so many changes that
// the delta is crowded, only the one before stays.
func (s *scope) add(b base, now time.Time, crowded bool) {
	if crowded {
		s.Bases = slices.Delete(s.Bases, 0, max(len(s.Bases)-1, 0))
	} else {
		s.Bases = slices.DeleteFunc(s.Bases, func(old base) bool { return old.Extra || !now.Before(old.NextUpdate) })
	}
	s.Bases = append(s.Bases, b)
	if over := len(s.Bases) - maxBases; over > 0 {
		s.Bases = slices.Delete(s.Bases, 0, over)
	}
}

// base is a complete list that deltas refer to.
type base struct {
	Number     int64     `json:"number"`
	Sequence   int64     `json:"sequence"` // of the journal: all up to it is in the list
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Made       time.Time `json:"made,omitzero"` // ThisUpdate is before it, by Options.Backdate
	Entries    int       `json:"entries,omitempty"`
	Extra      bool      `json:"extra,omitempty"` // made beside the schedule, to be replaced soon
}

func (b base) made() time.Time {
	if b.Made.IsZero() { // lists were not backdated once
		return b.ThisUpdate
	}
	return b.Made
}

func (s *scope) current() base { return s.Bases[len(s.Bases)-1] }

// base is the oldest one in force.
func (s *scope) base(now time.Time) base {
	for _, b := range s.Bases {
		if now.Before(b.NextUpdate) {
			return b
		}
	}
	return s.current()
}

func (p *Publisher) load(is *publication) error {
	if is.state != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(p.opts.Dir, is.Name), 0o755); err != nil {
		return err
	}
	// What a crash left half-written. Younger ones may be another process's.
	for _, pattern := range []string{tempName, filepath.Join(is.Name, tempName)} {
		stale, _ := filepath.Glob(filepath.Join(p.opts.Dir, pattern)) // the pattern is good
		for _, path := range stale {
			if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > time.Hour {
				os.Remove(path)
			}
		}
	}
	s := &state{Scopes: map[int]*scope{}}
	raw, err := os.ReadFile(p.stateFile(is))
	if err == nil {
		err = json.Unmarshal(raw, s)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w; remove it to have all CRLs published anew", p.stateFile(is), err)
	}
	is.state = s
	return nil
}

func (p *Publisher) save(is *publication) error {
	raw, err := json.MarshalIndent(is.state, "", "\t")
	if err != nil {
		return err
	}
	return replace(p.stateFile(is), func(f *os.File) error {
		_, err := f.Write(raw)
		return err
	})
}

func (p *Publisher) stateFile(is *publication) string {
	return filepath.Join(p.opts.Dir, is.Name+".json")
}

const tempName = ".new-*"

// remove deletes the lists of a scope.
func (p *Publisher) remove(is *publication, id int) error {
	for _, delta := range []bool{true, false} {
		if err := os.Remove(p.file(is.Name, id, delta)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// laterThan gives f, which takes the place of path, a modification time of another second: two
// lists of one second would look the same to who asks with If-Modified-Since.
func laterThan(f *os.File, path string) error {
	old, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	now := time.Now()
	if ahead := old.ModTime().Unix() - now.Unix(); ahead < 0 || ahead > 60 { // far ahead: the clock was put back
		return nil
	}
	next := old.ModTime().Add(time.Second)
	return os.Chtimes(f.Name(), next, next)
}

// replace writes a file beside path and moves it there when it is whole and on
// disk: readers find the old one or the new one, also after a power cut.
func replace(path string, write func(*os.File) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, tempName)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // once moved, there is nothing of that name
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = laterThan(f, path)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
