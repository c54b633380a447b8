package admin

import (
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

func tlsPair(der []byte, key crypto.Signer) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// many makes n lines; broken ends them with an error.
func many(n int, broken error) iter.Seq2[ImportLine, error] {
	return func(yield func(ImportLine, error) bool) {
		for i := range n {
			line := ImportLine{Line: i + 2, ID: fmt.Sprintf("d%05d", i), Level: "software"}
			switch i {
			case 10:
				line.ID = "LAMP-1" // there already
			case 11:
				line.Level = "nowhere"
			case 12:
				line.ID = "a b"
			case 13:
				line.State = device.Retired
			case 14:
				line.State = device.Manufactured
			}
			if !yield(line, nil) {
				return
			}
		}
		if broken != nil {
			yield(ImportLine{}, broken)
		}
	}
}

func TestImport(t *testing.T) {
	const n = 2500
	want := ImportCounts{Read: n, Added: n - 4, There: 1, Failed: 3}
	ways := map[string]func(*testing.T, *world) *Client{
		"in-process": func(_ *testing.T, w *world) *Client { return w.local() },
		"socket":     func(t *testing.T, w *world) *Client { return w.overSocket(t) },
		"https": func(t *testing.T, w *world) *Client {
			return w.overTLS(t, w.enlist(t, "tester", RoleOperator, now.AddDate(1, 0, 0)))
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := way(t, w)
			failures, progress := map[int]string{}, 0
			counts, err := c.Import(t.Context(), many(n, nil), func(r ImportReport) {
				if r.Failure != nil {
					failures[r.Failure.Line] = r.Failure.Error
				}
				if r.Progress != nil {
					progress++
				}
			})
			if err != nil || counts != want {
				t.Fatalf("%+v, %v", counts, err)
			}
			if len(failures) != 3 || !strings.Contains(failures[13], "nowhere") || !strings.Contains(failures[14], "position") || !strings.Contains(failures[15], "state") {
				t.Errorf("failures: %v", failures)
			}
			if progress < 3 || w.batches[0] != importBatch {
				t.Errorf("%d reports of progress, batches of %v", progress, w.batches)
			}
			if w.devices["d00014"].State != device.Manufactured || w.devices["d00000"].State != device.Claimed {
				t.Error("states were not kept")
			}
			// Again: what is there is counted and left alone.
			counts, err = c.Import(t.Context(), many(n, nil), func(ImportReport) {})
			if err != nil || counts.Added != 0 || counts.There != n-3 {
				t.Errorf("again: %+v, %v", counts, err)
			}
		})
	}
}

// TestImportProgress: reports arrive while the client is still sending.
func TestImportProgress(t *testing.T) {
	for name, c := range map[string]*Client{"in-process": newWorld(t).local(), "socket": newWorld(t).overSocket(t)} {
		t.Run(name, func(t *testing.T) {
			reported := make(chan struct{})
			lines := func(yield func(ImportLine, error) bool) {
				for i := range 2 * importBatch { // past one batch with what the client buffers
					if !yield(ImportLine{ID: fmt.Sprintf("p%d-%s", i, strings.Repeat("x", 50)), Level: "software"}, nil) {
						return
					}
				}
				<-reported
				yield(ImportLine{ID: "last", Level: "software"}, nil)
			}
			first := true
			counts, err := c.Import(t.Context(), lines, func(r ImportReport) {
				if r.Progress != nil && first {
					first = false
					close(reported)
				}
			})
			if err != nil || counts.Added != 2*importBatch+1 {
				t.Errorf("%+v, %v", counts, err)
			}
		})
	}
}

func TestImportCutOff(t *testing.T) {
	t.Run("the file breaks off", func(t *testing.T) {
		w := newWorld(t)
		broken := errors.New("cannot read on")
		counts, err := w.local().Import(t.Context(), many(20, broken), func(ImportReport) {})
		if !errors.Is(err, broken) || counts.Added != 16 {
			t.Errorf("%+v, %v", counts, err)
		}
	})
	t.Run("the database goes away", func(t *testing.T) {
		w := newWorld(t)
		w.fail = ca.Away("the database", nil)
		_, err := w.overSocket(t).Import(t.Context(), many(5000, nil), func(ImportReport) {})
		if p, ok := errors.AsType[*Problem](err); !ok || p.Kind != "unavailable" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the server dies", func(t *testing.T) {
		dies := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			io.WriteString(w, `{"progress":{"read":1,"added":1}}`+"\n")
			panic(http.ErrAbortHandler)
		})
		counts, err := NewLocalClient(dies).Import(t.Context(), many(5000, nil), func(ImportReport) {})
		if !errors.Is(err, ErrCutOff) || counts.Added != 1 {
			t.Errorf("%+v, %v", counts, err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		w := newWorld(t)
		c := w.overTLS(t, w.enlist(t, "tester", RoleAuditor, now.AddDate(1, 0, 0)))
		_, err := c.Import(t.Context(), many(5000, nil), func(ImportReport) {})
		if p, ok := errors.AsType[*Problem](err); !ok || p.Status != 403 {
			t.Errorf("got %v", err)
		}
	})
}

// TestImportLines: what is wrong with one line does not end the import, and a
// line without end does.
func TestImportLines(t *testing.T) {
	w := newWorld(t)
	body := `{"id":"a","level":"software"}` + "\n\nnonsense\n" + `{"id":"b","level":"software","colour":1}` + "\n" +
		`{"id":"c","level":"software"}` + "\n" + `{"id":"` + strings.Repeat("x", MaxLine) + `"}` + "\n" + `{"id":"d","level":"software"}` + "\n"
	resp, err := w.local().send(t.Context(), http.MethodPost, "/devices/import", nil, "application/x-ndjson", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := string(raw)
	for _, want := range []string{`{"failure":{"line":2,`, `unknown field`, `"added":2`, `"problem":{`, `longer than`} {
		if !strings.Contains(got, want) {
			t.Errorf("the answer has no %s:\n%s", want, got)
		}
	}
	if _, ok := w.devices["d"]; ok || strings.Contains(got, `"done"`) {
		t.Error("the import went on after a line without end")
	}
}
