package store_test

import (
	"path/filepath"
	"testing"

	"github.com/deviceca/deviceca/internal/store/storetest"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Engine { return openFile(t, filepath.Join(t.TempDir(), "db")) })
}
