package audit

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// HeadFile is a file that heads are appended to, one to a line. It is never
// read, rotated or cut here, so that it may be append-only, and may be moved away at any time.
type HeadFile string

// Append writes a head, and returns when it is on disk.
func (f HeadFile) Append(c Checkpoint) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	// Reading is for the end of the last line alone.
	file, err := os.OpenFile(string(f), os.O_APPEND|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		file, err = f.create()
	}
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if cut, err := endsInLine(file); err != nil {
		return errors.Join(err, file.Close())
	} else if cut {
		line = append([]byte("\n"), line...) // what a crash left of a line stays one by itself
	}
	_, err = file.Write(line)
	return errors.Join(err, file.Sync(), file.Close())
}

// create makes the file, and makes its name durable.
func (f HeadFile) create() (*os.File, error) {
	file, err := os.OpenFile(string(f), os.O_APPEND|os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(string(f)))
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// endsInLine reports whether the last line of a file has no end.
func endsInLine(file *os.File) (bool, error) {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return false, err
	}
	var last [1]byte
	_, err = file.ReadAt(last[:], size-1)
	return last[0] != '\n', err
}
