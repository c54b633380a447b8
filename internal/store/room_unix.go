//go:build linux || darwin

package store

import "syscall"

// Room is how many octets the file system of dir has left for us.
func Room(dir string) (free uint64, known bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return uint64(s.Bavail) * uint64(s.Bsize), true
}
