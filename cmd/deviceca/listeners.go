package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/deviceca/deviceca/internal/admin"
)

// listeners are what a server listens on, by name. They are bound before the server opens anything: one that cannot
// have its addresses ends before it has issued, recorded or signed something.
type listeners map[string]net.Listener

// bind takes every address of the configuration, and the admin socket. The home's lock is held: whatever is at the socket's
// path is no server's.
func bind(home Home, cfg Config) (_ listeners, err error) {
	bound := listeners{}
	defer func() {
		if err != nil {
			bound.close()
		}
	}()
	for _, l := range []struct{ name, address string }{
		{"https", cfg.Listen.HTTPS}, {"https_nocert", cfg.Listen.HTTPSNoCert}, {"http", cfg.Listen.HTTP}, {"metrics", cfg.Listen.Metrics},
	} {
		if l.address == "" || l.address == "off" {
			continue
		}
		if bound[l.name], err = net.Listen("tcp", l.address); err != nil {
			delete(bound, l.name)
			return nil, hinted(fmt.Errorf("listen.%s %s: %w", l.name, l.address, err), "%s choose another address with --%s, or listen.%s in %s",
				whyNot(err), l.name, l.name, home.config())
		}
	}
	if bound["admin"], err = admin.Listen(home.socket()); err != nil {
		delete(bound, "admin")
		return nil, err
	}
	return bound, nil
}

// whyNot says more of an address that cannot be had.
func whyNot(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another process has it (ss -ltnp tells which): stop that, or"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 take the capability CAP_NET_BIND_SERVICE: grant it, or"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no interface of this host has that address: correct it, or"
	}
	return ""
}

// close closes those that no server has closed yet.
func (l listeners) close() {
	for _, one := range l {
		one.Close()
	}
}
