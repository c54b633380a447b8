//go:build unix

package client

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

func lockHandle(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// sync makes renames and removals in the directory of that name, "." for itself, durable.
func (d *directory) sync(name string) error {
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// linkless: the file system has no symbolic links, as FAT.
func linkless(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EOPNOTSUPP)
}

// euid is replaced in tests.
var euid = os.Geteuid

// foreignOwner is the owner of a file, and whether that is neither this process's user nor root.
func foreignOwner(info fs.FileInfo) (user uint32, foreign bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return stat.Uid, stat.Uid != 0 && int(stat.Uid) != euid()
}

// rights are those of owner, group and others.
func rights(info fs.FileInfo) fs.FileMode { return info.Mode().Perm() }
