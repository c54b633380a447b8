package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

// load records with so many workers until stop is called, or the indexes are spent.
func load(t *testing.T, s *store.Store, m *storetest.Make, workers int) (acknowledged func() []ca.Serial, stop func()) {
	var mu sync.Mutex
	var serials []ca.Serial
	var made atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := made.Add(1)
				if n > 2000 {
					return
				}
				i := m.Enrol(fmt.Sprintf("lamp-%d", n), "")
				if err := s.Record(t.Context(), i); err != nil {
					t.Error(err)
				}
				mu.Lock()
				serials = append(serials, i.Certificate.Serial)
				mu.Unlock()
			}
		})
	}
	return func() []ca.Serial {
			mu.Lock()
			defer mu.Unlock()
			return append([]ca.Serial(nil), serials...)
		}, func() {
			cancel()
			wg.Wait()
		}
}

// mustHold fails the test unless everything acknowledged is there and the chain is whole.
func mustHold(t *testing.T, s *store.Store, acknowledged []ca.Serial) {
	t.Helper()
	for _, serial := range acknowledged {
		if _, err := s.CertificateBySerial(t.Context(), serial); err != nil {
			t.Fatalf("%s was acknowledged: %v", serial, err)
		}
	}
	counts, err := s.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := storetest.Verify(t, s); int64(r.Events) < counts.Issued {
		t.Errorf("%d certificates, %d events", counts.Issued, r.Events)
	}
	if err := s.RecordEvent(t.Context(), storetest.Event(ca.EventRestored, "")); err != nil {
		t.Error(err)
	}
}

// The files as they are in the middle of a load are what a power cut leaves:
// everything acknowledged before must be in them.
func TestCopiedMidLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	s := openFile(t, path)
	m := storetest.NewMake(t, s, 2000) // stays below a checkpoint of the WAL, which would move pages between the two copies
	acknowledged, stop := load(t, s, m, 16)
	for round := range 3 {
		for len(acknowledged()) < 100*(round+1) {
			time.Sleep(time.Millisecond)
		}
		before := acknowledged()
		crashed := filepath.Join(dir, fmt.Sprintf("crashed-%d", round))
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(crashed+suffix, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		mustHold(t, openFile(t, crashed), before)
	}
	stop()
}

// childEnv makes this test binary the process that TestKilled kills: it
// records without end in the database named, and prints each serial once it is
// acknowledged.
const childEnv = "STORE_TEST_RECORD_IN"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := recordForever(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func recordForever(path string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, path, store.Options{})
	if err != nil {
		return err
	}
	const n = 1 << 20
	m, err := storetest.Reserve(ctx, s, n)
	if err != nil {
		return err
	}
	errs := make(chan error)
	for w := range 16 {
		go func() {
			for i := 0; ; i++ {
				issuance := m.Enrol(fmt.Sprintf("lamp-%d-%d-%d", os.Getpid(), w, i), "")
				if err := s.Record(ctx, issuance); err != nil {
					errs <- err
					return
				}
				os.Stdout.WriteString(issuance.Certificate.Serial.String() + "\n")
			}
		}()
	}
	return <-errs
}

func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	var all []ca.Serial
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for n := 0; ; n++ {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // killed; a line cut short was not acknowledged
			}
			serial, err := ca.ParseSerial(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, serial)
			if n == 200*(round+1) {
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		cmd.Wait()
		s := openFile(t, path)
		mustHold(t, s, all)
		s.Close()
	}
	seen := map[uint64]bool{}
	for _, serial := range all {
		if seen[serial.Index()] {
			t.Errorf("index %d was given twice", serial.Index())
		}
		seen[serial.Index()] = true
	}
	if len(all) < 1200 {
		t.Errorf("only %d records were acknowledged", len(all))
	}
}
