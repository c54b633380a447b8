package keys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// PINSource says where a PIN or passphrase lies. The PIN itself never travels
// in flags, URIs or this value. The zero PINSource is none.
type PINSource struct {
	kind string // "file", "env", "credential"
	name string
}

// ParsePINSource reads "file:/path", "env:NAME" or "credential:name" (a systemd
// credential, $CREDENTIALS_DIRECTORY/name).
func ParsePINSource(s string) (PINSource, error) {
	// s is not repeated in errors: it may be the PIN, put in the wrong place.
	hint := errors.New("keys: bad PIN source: want file:/path, env:NAME or credential:name")
	kind, name, ok := strings.Cut(s, ":")
	if !ok || name == "" || strings.ContainsRune(name, 0) {
		return PINSource{}, hint
	}
	switch kind {
	case "file":
		if !filepath.IsAbs(name) {
			return PINSource{}, errors.New("keys: bad PIN source: the path of file: must be absolute")
		}
	case "env":
		if strings.Contains(name, "=") {
			return PINSource{}, hint
		}
	case "credential":
		if strings.Contains(name, "/") || name == "." || name == ".." {
			return PINSource{}, errors.New("keys: bad PIN source: a credential is a bare name")
		}
	default:
		return PINSource{}, hint
	}
	return PINSource{kind, name}, nil
}

// String gives the source in the form that ParsePINSource reads; it is no secret.
func (p PINSource) String() string {
	if p.IsZero() {
		return ""
	}
	return p.kind + ":" + p.name
}

// IsZero reports whether there is no source.
func (p PINSource) IsZero() bool { return p.kind == "" }

// maxPIN bounds what Read takes, in bytes.
const maxPIN = 1024

// Read fetches the PIN, without a final line break. A file that its group or
// anybody else may read is refused.
func (p PINSource) Read() (string, error) {
	var pin string
	switch p.kind {
	case "":
		return "", errors.New("keys: no PIN source: name one, such as file:/path, env:NAME or credential:name")
	case "env":
		v, ok := os.LookupEnv(p.name)
		if !ok {
			return "", fmt.Errorf("keys: PIN from %v: the variable is not set", p)
		}
		pin = v
	case "credential":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", fmt.Errorf("keys: PIN from %v: CREDENTIALS_DIRECTORY is not set: add LoadCredential=%s:… to the unit", p, p.name)
		}
		// systemd guards the directory itself, and may show group bits that only mirror an ACL.
		v, err := readPIN(filepath.Join(dir, p.name), false)
		if err != nil {
			return "", fmt.Errorf("keys: PIN from %v: %w", p, err)
		}
		pin = v
	case "file":
		v, err := readPIN(p.name, true)
		if err != nil {
			return "", fmt.Errorf("keys: PIN from %v: %w", p, err)
		}
		pin = v
	}
	pin = strings.TrimSuffix(strings.TrimSuffix(pin, "\n"), "\r")
	if pin == "" || len(pin) > maxPIN || strings.ContainsAny(pin, "\x00\r\n") {
		return "", fmt.Errorf("keys: PIN from %v: want one line of 1 to %d bytes", p, maxPIN)
	}
	return pin, nil
}

func readPIN(path string, private bool) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// Asked of the open file, so that it cannot be swapped in between.
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	if perm := info.Mode().Perm(); private && perm&0o077 != 0 {
		return "", fmt.Errorf("mode %04o lets others read it: chmod 600 %s", perm, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPIN+3))
	return string(b), err
}
