package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockPatience is how long lockFile waits. Whoever has the lock needs it for milliseconds.
const lockPatience = 10 * time.Second

// lockFile takes the lock of a file that is replaced, never written into, for this process
// alone. The lock is on FILE.lock, which stays.
func lockFile(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		waits := errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR)
		if waits && time.Now().Before(until) {
			continue
		}
		f.Close()
		if waits {
			return nil, hinted(fmt.Errorf("another process has had %s locked for %s", file, lockPatience), "see which one: fuser %s.lock", file)
		}
		return nil, err
	}
}
