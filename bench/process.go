package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a server that this program started, and ends.
type process struct {
	cmd  *exec.Cmd
	log  string // file that takes its standard error
	wait func() error
}

// start logs to a file: a pipe would have this program run for each line of the server's.
func start(cmd *exec.Cmd, log string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the process has its own
	p := &process{cmd: cmd, log: log}
	cmd.Stderr = file
	// The server must not outlive us, however we end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.wait = sync.OnceValue(cmd.Wait)
	return p, nil
}

// stop asks the process to end, and ends it if it does not.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(30*time.Second, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.wait(); err != nil {
		return fmt.Errorf("%s ended with %w\n%s", p.cmd.Path, err, p.logTail())
	}
	return nil
}

// kill ends a process that does not end when it is asked, or has nothing to lose.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.wait()
}

// until polls ready until it is true; the process is given half a minute.
func (p *process) until(ctx context.Context, ready func() error) error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := ready()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not get ready: %w\n%s", p.cmd.Path, err, p.logTail())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// clockTick is the unit of /proc/PID/stat, which Linux fixes at USER_HZ = 100.
const clockTick = 10 * time.Millisecond

// cpu is the processor time that the process has used, user and system, to 10 ms (proc(5), fields 14 and 15).
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, fmt.Errorf("/proc/%d/stat is %q", p.cmd.Process.Pid, stat)
	}
	user, err1 := strconv.ParseInt(fields[utime], 10, 64)
	system, err2 := strconv.ParseInt(fields[stime], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// logTail is the end of what the process has logged.
func (p *process) logTail() string {
	const size = 4 << 10
	log, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-size):])
}

// freeAddr is an address of this host that nobody listens on at the moment.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
