package attest_test

import (
	"encoding/hex"
	"os"
	"testing"

	"github.com/deviceca/deviceca/internal/attesttest"
)

func TestMain(m *testing.M) {
	status := m.Run()
	attesttest.StopShared()
	os.Exit(status)
}

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
