package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
)

func TestReadIDs(t *testing.T) {
	for name, c := range map[string]struct {
		text, want, fault string
	}{
		"a list":          {"# scrapped\nlamp-1\n\n  lamp-2  \n", "2 lamp-1, 4 lamp-2", ""},
		"a list named so": {"id\nlamp-1\n", "2 lamp-1", ""},
		"other columns":   {"Colour, ID ,level\nred,lamp-1,x\n\"dark, red\",lamp-2,y\n", "2 lamp-1, 3 lamp-2", ""},
		"objects":         {`{"id":"lamp-1"}` + "\n" + `{"id":"lamp-2","level":"x"}`, "1 lamp-1, 2 lamp-2", ""},
		"an array":        {`[{"id":"lamp-1"},` + "\n" + `{"id":"lamp-2"}]`, "1 lamp-1, 2 lamp-2", ""},
		"a byte order":    {"\xef\xbb\xbflamp-1\r\nlamp-2", "1 lamp-1, 2 lamp-2", ""},
		"no id column":    {"name,level\nlamp-1,x\n", "", "line 1 has 2 columns, and none is called id"},
		"a short line":    {"level,id\nx,lamp-1\ny\n", "2 lamp-1", "line 3 has no column 2"},
		"a stray quote":   {"lamp-1\n\"lamp-2\n", "1 lamp-1", "line 2: "},
		"a long line":     {strings.Repeat("x", admin.MaxLine+1), "", "line 1: "},
		"nothing":         {" \n", "", "the file is empty"},
	} {
		var got []string
		var fault error
		for l, err := range readIDs(strings.NewReader(c.text), func(f admin.ImportFailure) { t.Errorf("%s: %+v", name, f) }) {
			if fault = err; err == nil {
				got = append(got, fmt.Sprintf("%d %s", l.Line, l.ID))
			}
		}
		if strings.Join(got, ", ") != c.want || (fault == nil) != (c.fault == "") || fault != nil && !strings.Contains(fault.Error(), c.fault) {
			t.Errorf("%s: %q, %v", name, got, fault)
		}
	}
}

// The first error ends the work, and nothing that had begun is left behind.
func TestInParallel(t *testing.T) {
	var begun, over atomic.Int64
	numbers := func(yield func(int, error) bool) {
		for i := range 100_000 {
			if !yield(i, nil) {
				return
			}
		}
	}
	broken := errors.New("broken")
	err := inParallel(t.Context(), 4, numbers, func(_ context.Context, i int) error {
		begun.Add(1)
		defer over.Add(1)
		if i == 50 {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) || begun.Load() != over.Load() || begun.Load() == 100_000 {
		t.Errorf("%v after %d of %d", err, over.Load(), begun.Load())
	}
	var sum atomic.Int64
	if err := inParallel(t.Context(), 4, numbers, func(_ context.Context, i int) error { sum.Add(int64(i)); return nil }); err != nil || sum.Load() != 99_999*50_000 {
		t.Errorf("%d, %v", sum.Load(), err)
	}
	if err := inParallel(t.Context(), 4, func(yield func(int, error) bool) { yield(0, broken) }, func(context.Context, int) error { return nil }); !errors.Is(err, broken) {
		t.Errorf("items that break off: %v", err)
	}
}

// A file of credentials goes on where it stopped, and takes nothing that it did not write.
func TestGrantFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grants")
	for i, id := range []string{"Lamp-1", "lamp-2"} {
		g, err := openGrants(path)
		if err != nil {
			t.Fatal(err)
		}
		if g.holds(id) || i > 0 && !g.holds("LAMP-1") {
			t.Errorf("%s: holds %v", id, g.has)
		}
		if err := errors.Join(g.add(&ca.Grant{ID: id, Secret: "s"}), g.Close()); err != nil {
			t.Fatal(err)
		}
		if file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0); err != nil {
			t.Fatal(err)
		} else if _, err := file.WriteString(`{"id":"lamp-3","secr`); err != nil || file.Close() != nil { // killed
			t.Fatal(err)
		}
	}
	g, err := openGrants(path)
	if err != nil || g.holds("lamp-3") || !g.holds("lamp-2") {
		t.Fatalf("%v", err)
	}
	g.Close()
	raw, err := os.ReadFile(path)
	if lines := strings.Split(string(raw), "\n"); err != nil || len(lines) != 3 || !slices.Contains(lines, "") {
		t.Errorf("%q, %v", raw, err)
	}
	for i, text := range []string{"buy milk\n", "buy milk", "{}\n", `{"name":"x"}`} {
		other := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openGrants(other); err == nil {
			t.Errorf("a file with %q was taken", text)
		}
		if raw, _ := os.ReadFile(other); string(raw) != text {
			t.Errorf("%q is %q now", text, raw)
		}
	}
	if _, err := openGrants(t.TempDir()); err == nil {
		t.Error("a directory was taken")
	}
}
