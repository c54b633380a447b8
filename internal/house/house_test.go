// Package house holds the test that keeps the tree in the shape that
// docs/architecture.md describes.
package house

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/deviceca/deviceca/"

// mayImport says which packages of ours a package may import. What is not
// listed here may not be there. Tests may import more.
var mayImport = map[string][]string{
	"policy":         {},
	"pack":           {},
	"pack/publisher": {"pack"},
	"internal/der":   {},
	"internal/keys":  {},
	"internal/audit": {},
	"internal/limit": {}, // whoever serves clients may use it
	"internal/cms":   {"internal/der"},
	"device":         {"policy"},
	"ca":             {"policy", "device", "internal/cms", "internal/der", "internal/path", "internal/revlist", "internal/limit"},
	"attest":         {"policy", "internal/der", "internal/path"},
	"cmp":            {"internal/cms", "internal/der"},
	"est":            protocol,
	"acme":           protocol,
	"cmp/server":     append([]string{"cmp"}, protocol...),
	"ocsp":           {"ca", "internal/der"},
	"crl":            {"ca", "internal/der", "internal/revlist"},
	"client":         {"cmp", "internal/cms", "internal/der"},
	"client/tpm":     {"client", "internal/der"}, // apart, so that the small program goes without a TPM
	// Reads revocation lists, ours and those of manufacturers.
	"internal/revlist": {"internal/der"},
	// Validates certification paths, of manufacturers and for relying parties.
	"internal/path": {"internal/der"},
	// Tells others what happens.
	"internal/webhook": {"ca", "internal/audit"},
	// The administrator's protocol.
	"internal/admin": {"ca", "policy", "device", "internal/audit", "internal/der", "internal/limit"},
	// The store serves the packages whose interfaces it satisfies.
	"internal/store": {"ca", "device", "policy", "attest", "acme", "cmp/server", "ocsp", "crl", "pack/publisher", "internal/audit"},
	// Programs and conformance suites.
	"cmd/deviceca":               {"*"},
	"client/cmd/deviceca-device": {"client"},
	"bench":                      {"*"},
	"bench/revocation":           {"*"},
	"bench/flood":                {"*"},
	"interop":                    {},
	"internal/keys/keystest":     {"internal/keys"},
	"internal/store/storetest":   {"*"},
	"internal/attesttest":        {"client", "client/tpm", "internal/der"},
	"internal/dertest":           {},
	"internal/house":             {},
	"internal/dnstest":           {},
	"internal/stacktest":         {"*"},
}

// protocol is what each protocol server may import; never another protocol.
var protocol = []string{"ca", "policy", "device", "attest", "internal/cms", "internal/der", "internal/limit"}

// neverImports are standard packages that would blur a line.
var neverImports = map[string][]string{
	"ca":     {"net/http", "database/sql"},
	"policy": {"net/http", "database/sql", "os", "io/fs"},
	"device": {"net/http", "database/sql"},
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("%s has no place in the house: give it one here and in docs/architecture.md", name)
		}
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(allowed, ours) && !slices.Contains(allowed, "*") {
				t.Errorf("%s imports %s, and may not", name, ours)
			}
			if slices.Contains(neverImports[name], imported) {
				t.Errorf("%s imports %s, and may not", name, imported)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages were looked at", seen)
	}
}
