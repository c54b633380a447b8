package crl

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Files are the lists in a Publisher's directory. A list goes by the end of its
// URL: NAME.crl, NAME-delta.crl, NAME/K.crl, NAME/K-delta.crl.
type Files struct {
	Dir     string
	Resolve func(name string) string // as HandlerOptions.Resolve
}

var (
	listPath  = regexp.MustCompile(`^([a-z0-9-]{1,64}?)(/[0-9]{1,10})?(-delta)?\.crl$`)
	issuerRef = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
)

// validName reports whether an issuer's name can be told from "-delta" in a path.
func validName(name string) bool {
	return issuerRef.MatchString(name) && !strings.HasSuffix(name, "-delta")
}

// open opens a list; fs.ErrNotExist also for what cannot be the name of one.
func (l Files) open(path string) (f *os.File, delta bool, err error) {
	m := listPath.FindStringSubmatch(path)
	if m == nil {
		return nil, false, fs.ErrNotExist
	}
	name := m[1]
	if l.Resolve != nil {
		name = l.Resolve(name)
	}
	if !validName(name) {
		return nil, false, fs.ErrNotExist
	}
	f, err = os.Open(filepath.Join(l.Dir, filepath.FromSlash(name+m[2]+m[3]+".crl")))
	return f, m[3] != "", err
}

// ErrTooLong is the error of Newer for a list that has more octets than wanted.
var ErrTooLong = errors.New("the CRL is longer than that")

// Newer reads the list called path if its thisUpdate is after since; nil if it is
// not, or if there is none of that name. ErrTooLong for more than limit octets.
func (l Files) Newer(path string, since time.Time, limit int64) ([]byte, error) {
	f, _, err := l.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch thisUpdate, _, err := fileTimes(f); {
	case err != nil:
		return nil, err
	case !thisUpdate.After(since):
		return nil, nil
	case info.Size() > limit:
		return nil, ErrTooLong
	}
	raw := make([]byte, info.Size())
	_, err = f.ReadAt(raw, 0) // a list is replaced, never written over: this is one whole list
	return raw, err
}
