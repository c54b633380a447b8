package client

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// directory is the directory of a Store, held open. Whatever happens to its path meanwhile, everything is read and written in it,
// and no symbolic link leads anywhere else.
type directory struct{ *os.Root }

// maxFile is far above the files of a Store.
const maxFile = 4 << 20

// errPlanted is the cause where a file is not as this package writes it, and not by a crash.
var errPlanted = errors.New("this program does not write such a file")

// openDirectory opens a directory that nobody else can write: it belongs to the user of this process or to root, as does a
// symbolic link that leads to it, and neither group nor others may write it. A missing one is fs.ErrNotExist.
func openDirectory(path string) (*directory, error) {
	if path == "" {
		return nil, &Error{Kind: Usage, Op: "store", Text: "no directory was given", Hint: "name the directory for key and certificate"}
	}
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.IsDir() { // found out before it is opened: opening a FIFO waits
		return nil, &Error{Kind: Local, Op: "store", Text: path + " is not a directory", Hint: "name the directory for key and certificate"}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &directory{root}
	if err := d.check(path); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *directory) check(path string) error {
	link, err := os.Lstat(path)
	if err != nil {
		return err
	}
	info, err := d.Stat(".")
	if err != nil {
		return err
	}
	refuse := func(text, hint string) error {
		return &Error{Kind: Local, Op: "store", Text: text, Hint: hint}
	}
	if user, ok := foreignOwner(link); ok && link.Mode()&fs.ModeSymlink != 0 {
		return refuse(fmt.Sprintf("%s is a symbolic link of user %d, who could lead it elsewhere", path, user), "name the directory itself, or have the link made by root")
	}
	if user, ok := foreignOwner(info); ok {
		return refuse(fmt.Sprintf("the directory %s belongs to user %d: keys are kept only in a directory of the user who runs this, or of root", path, user),
			"run this as that user, or chown the directory, or name another")
	}
	if mode := rights(info); mode&0o022 != 0 {
		return refuse(fmt.Sprintf("the directory %s can be written by others (mode %04o): what lies in it cannot be trusted", path, mode),
			"look through it, then: chmod go-w "+path+"; or name a new directory")
	}
	return nil
}

// read reads a regular file of the directory, never through a symbolic link.
// Only the links that this package makes are followed, see pair.go.
func (d *directory) read(name string) ([]byte, error) {
	name, err := d.locate(name)
	if err != nil {
		return nil, err
	}
	f, err := d.open(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is longer than %d octets", name, maxFile)
	}
	return text, err
}

// open opens a regular file. The directory is nobody else's, so that a symbolic link in it is a mistake, not a race.
func (d *directory) open(name string, flag int, mode fs.FileMode) (*os.File, error) {
	info, err := d.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && flag&os.O_CREATE != 0:
		f, err := d.OpenFile(name, flag|os.O_EXCL, mode) // O_EXCL follows no link
		if errors.Is(err, fs.ErrExist) {
			return d.open(name, flag, mode) // another process was faster
		}
		return f, err
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &Error{Kind: Local, Op: "store", Text: fmt.Sprintf("%s in %s is not a regular file (%v)", name, d.Name(), info.Mode().Type()),
			Err: errPlanted, Hint: "find out who put it there, and remove it"}
	}
	return d.OpenFile(name, flag, mode)
}
