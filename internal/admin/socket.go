package admin

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// SocketName is the file name of the API's socket in the home directory.
const SocketName = "admin.sock"

const uidPrefix = "uid:"

// uidAddr is the address of a peer on the socket: the user it runs as.
type uidAddr int

func (uidAddr) Network() string  { return "unix" }
func (u uidAddr) String() string { return uidPrefix + strconv.Itoa(int(u)) }

// Listen makes the socket at path, for this process's user alone: the file's
// mode is 0600, and where the system tells (Linux), peers other than this user
// and root are turned away. Connections carry the peer's user ID as RemoteAddr.
//
// A socket that a killed server left behind is replaced; one that a server
// answers on is an error.
func Listen(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("a server answers on %s already; stop it first", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EINVAL) {
		return nil, fmt.Errorf("the admin socket %s: %w: a socket's path may have about 100 characters; choose a shorter home", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("the admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return &ownerListener{l}, nil
}

// ownerListener accepts the owner's connections alone.
type ownerListener struct{ net.Listener }

func (l *ownerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(conn.(*net.UnixConn))
		if err != nil || uid != 0 && uid != os.Geteuid() {
			conn.Close()
			continue
		}
		return &ownerConn{conn, uidAddr(uid)}, nil
	}
}

type ownerConn struct {
	net.Conn
	peer uidAddr
}

func (c *ownerConn) RemoteAddr() net.Addr { return c.peer }
