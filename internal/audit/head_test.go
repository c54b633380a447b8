package audit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func signedEntry(t testing.TB, key *ecdsa.PrivateKey, sequence uint64) (Entry, Checkpoint) {
	t.Helper()
	e := Entry{Sequence: sequence, Time: time.UnixMicro(1e15 + int64(sequence)).UTC(), Count: 1}
	c, err := Sign(key, "audit", e, e.Time)
	if err != nil {
		t.Fatal(err)
	}
	return e, c
}

func TestHeadFile(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	path := filepath.Join(t.TempDir(), "heads")
	file := HeadFile(path)
	var want []Checkpoint
	add := func(sequence uint64) {
		t.Helper()
		_, c := signedEntry(t, key, sequence)
		if err := file.Append(c); err != nil {
			t.Fatal(err)
		}
		want = append(want, c)
	}
	add(1)
	add(7)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// A crash may cut a line off.
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, lost := signedEntry(t, key, 8)
	line, _ := json.Marshal(lost)
	if err := os.WriteFile(path, append(raw, line[:40]...), 0o600); err != nil {
		t.Fatal(err)
	}
	add(9)
	got, without := readAll(t, path)
	if !reflect.DeepEqual(got, want) || without != 1 {
		t.Errorf("read %+v and %d lines without a head, want %+v", got, without, want)
	}
	for _, c := range got {
		if err := c.Verify(key.Public()); err != nil {
			t.Error(err)
		}
	}
	if err := HeadFile(filepath.Join(path, "below")).Append(want[0]); err == nil {
		t.Error("appended below a file")
	}
}

func readAll(t *testing.T, path string) (all []Checkpoint, without int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	without, err = ReadHeads(f, func(c Checkpoint) error { all = append(all, c); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return all, without
}

var testKey, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)

func TestReadHeads(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, c := signedEntry(t, key, 7)
	raw, _ := json.Marshal(c)
	dropped := c
	dropped.Dropped = 3
	rawDropped, _ := json.Marshal(dropped)
	for name, test := range map[string]struct {
		text    string
		want    []Checkpoint
		without int
	}{
		"empty":                {"", nil, 0},
		"lines":                {fmt.Sprintf("%s\n\n%s\r\n", raw, rawDropped), []Checkpoint{c, dropped}, 0},
		"no newline":           {string(raw), []Checkpoint{c}, 0},
		"behind a log's own":   {fmt.Sprintf("Jan  1 00:00:00 ca deviceca[7]: %s\n", raw), []Checkpoint{c}, 0},
		"a webhook's body":     {fmt.Sprintf(`{"events":[{"id":1,"kind":"x"}],"head":%s}`, raw), []Checkpoint{c}, 0},
		"bodies without lines": {fmt.Sprintf(`{"events":[],"head":%s}{"events":[]}{"head":%s}`, raw, raw), []Checkpoint{c, c}, 0},
		"a body without":       {`{"events":[{"id":1,"kind":"certificate.issued"}]}`, nil, 1},
		"cut off":              {string(raw[:50]) + "\n" + string(raw), []Checkpoint{c}, 1},
		"other JSON":           {`{"kind":"audit.head","sequence":0,"hash":"00"}` + "\n[]\n{}\ntrue", nil, 4},
	} {
		t.Run(name, func(t *testing.T) {
			var got []Checkpoint
			without, err := ReadHeads(strings.NewReader(test.text), func(c Checkpoint) error { got = append(got, c); return nil })
			if err != nil || without != test.without || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %d, %v", got, without, err)
			}
		})
	}
	if _, err := ReadHeads(strings.NewReader(strings.Repeat("x", maxHeadLine+1)), nil); err == nil {
		t.Error("a line without end was read")
	}
	stop := errors.New("stop")
	if _, err := ReadHeads(strings.NewReader(string(raw)), func(Checkpoint) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func FuzzReadHeads(f *testing.F) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, c := signedEntry(f, key, 7)
	raw, _ := json.Marshal(c)
	for _, seed := range []string{string(raw), `{"head":` + string(raw) + `}`, "{", `{"head":null}`, "x{" + string(raw), `{"kind":"audit.head","sequence":18446744073709551615}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		ReadHeads(strings.NewReader(string(text)), func(c Checkpoint) error {
			again, err := json.Marshal(c)
			var read Checkpoint
			if err != nil || json.Unmarshal(again, &read) != nil || !reflect.DeepEqual(read, c) {
				t.Errorf("%+v is written as %s and read as %+v", c, again, read)
			}
			return nil
		})
	})
}

func TestCheckHead(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	foreign, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	m := &memory{}
	var heads []Checkpoint
	for s := range uint64(10) {
		e, c := signedEntry(t, key, s+1)
		m.entries, heads = append(m.entries, e), append(heads, c)
	}
	_, later := signedEntry(t, key, 11)
	_, forged := signedEntry(t, foreign, 12)
	other := m.entries[4]
	other.Root[0]++
	rewritten, err := Sign(key, "audit", other, other.Time)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		head Checkpoint
		want string
	}{
		"there":     {heads[6], ""},
		"newest":    {heads[9], ""},
		"beyond":    {later, "was truncated: the head of 2001-09-09T01:46:40Z with sequence 11 is not in the log"},
		"rewritten": {rewritten, "was rewritten: the head of 2001-09-09T01:46:40Z with sequence 5 is not in the log"},
		"another's": {forged, "was not signed by this CA's audit key"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckHead(t.Context(), m, OneKey(key.Public()), test.head)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if _, ok := errors.AsType[*Fault](err); !ok || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
