package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
)

// grantFile is where the credentials of an import are written, one JSON object to a line, like that of
// device add --json. It holds secrets: only its owner may read it.
type grantFile struct {
	mu   sync.Mutex
	file *os.File
	has  map[string]bool // devices with a credential in it, folded
}

// openGrants opens the file, or makes it. A line that was cut off is taken out: its secret is not whole.
func openGrants(path string) (_ *grantFile, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, hinted(fmt.Errorf("%s is not a file that only its owner can read, and secrets go into it", path), "chmod 600 %s, or name another file", path)
	}
	g := &grantFile{file: file, has: map[string]bool{}}
	whole := int64(0)
	for in := bufio.NewReader(file); ; {
		line, err := in.ReadBytes('\n')
		cut := errors.Is(err, io.EOF)
		if cut && begunGrant(line) {
			break
		}
		if err != nil && !cut {
			return nil, err
		}
		whole += int64(len(line))
		var grant ca.Grant
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if json.Unmarshal(line, &grant) != nil || grant.ID == "" || grant.Secret == "" {
			return nil, hinted(fmt.Errorf("%s has a line that is no credential of a device", path), "name a new file, or the one that an import began")
		}
		g.has[device.Fold(grant.ID)] = true
	}
	if err := file.Truncate(whole); err != nil {
		return nil, err
	}
	_, err = file.Seek(whole, io.SeekStart)
	return g, err
}

// begunGrant reports whether a line can be the beginning of one that add writes.
func begunGrant(line []byte) bool {
	const begin = `{"id":"`
	return strings.HasPrefix(begin, string(line[:min(len(line), len(begin))]))
}

// add writes one.
func (g *grantFile) add(grant *ca.Grant) error {
	line, err := json.Marshal(grant)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.has[device.Fold(grant.ID)] = true
	_, err = g.file.Write(append(line, '\n'))
	return err
}

func (g *grantFile) holds(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.has[device.Fold(id)]
}

func (g *grantFile) Close() error { return errors.Join(g.file.Sync(), g.file.Close()) }

// grantCounts count the credentials of an import.
type grantCounts struct {
	Made    int64 `json:"made"`
	There   int64 `json:"there"`  // in the file already
	Passed  int64 `json:"passed"` // devices that were enrolled before, or are suspended or retired
	Missing int64 `json:"missing"`
}

func (n grantCounts) String() string {
	return fmt.Sprintf("%d credentials made, %d in the file already, %d devices passed over", n.Made, n.There, n.Passed)
}

// makeGrants makes a credential for each device of the file that waits for its first certificate and has none
// in the grant file yet.
func (a *app) makeGrants(ctx context.Context, c *admin.Client, o output, in io.Reader, g *grantFile, uses int, ttl time.Duration) (n grantCounts, err error) {
	var mu sync.Mutex
	last := a.now()
	count := func(which *int64) {
		mu.Lock()
		defer mu.Unlock()
		*which++
		if now := a.now(); now.Sub(last) >= time.Second {
			last = now
			o.note("%s", n)
		}
	}
	lines := readDevices(in, func(admin.ImportFailure) {}) // the first pass told of these
	err = inParallel(ctx, bulkWorkers, lines, func(ctx context.Context, l admin.ImportLine) error {
		if g.holds(l.ID) {
			count(&n.There)
			return nil
		}
		d, err := c.Device(ctx, l.ID)
		switch {
		case kindOf(err) == ca.NotFound.String() || kindOf(err) == ca.Malformed.String(): // the first pass told of it
			count(&n.Missing)
			return nil
		case err != nil:
			return err
		case d.State != device.Claimed && d.State != device.Manufactured:
			count(&n.Passed)
			return nil
		}
		grant, err := c.AddCredential(ctx, admin.NewCredential{Device: d.ID, Uses: uses, TTL: admin.Duration(ttl)})
		if err != nil {
			return fmt.Errorf("device %s: %w", d.ID, err)
		}
		grant.Warnings = nil // said once, by the first pass
		if err := g.add(grant); err != nil {
			return err
		}
		count(&n.Made)
		return nil
	})
	return n, err
}
