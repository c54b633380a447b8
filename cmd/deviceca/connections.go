package main

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/deviceca/deviceca/ca"
)

// fairListener bounds the connections of a listener, and those of each network
// address (an IPv6 address counts as its /64). A connection beyond the address's bound is closed at once. A full
// listener closes the newest connection of the address that has most, if that leaves it no
// fewer than the newcomer's; else the newcomer. So no address can shut out the others.
//
// Connections from exempt networks, the reverse proxies, count for the whole alone, and are never closed for others.
type fairListener struct {
	net.Listener
	max, perAddress int
	exempt          []netip.Prefix
	refused         func(reason string) // is told of each connection closed: refusedAddress or refusedFull

	mu        sync.Mutex
	total     int
	byAddress map[string][]*fairConn // not of exempt networks; the newest last
}

const (
	refusedAddress = "address"
	refusedFull    = "full"
)

func newFairListener(l net.Listener, max, perAddress int, exempt []netip.Prefix, refused func(reason string)) *fairListener {
	return &fairListener{Listener: l, max: max, perAddress: perAddress, exempt: exempt, refused: refused, byAddress: map[string][]*fairConn{}}
}

// Accept returns the next connection that may be served.
func (l *fairListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &fairConn{Conn: raw, of: l, network: l.network(raw.RemoteAddr())}
		loser, reason := l.admit(c)
		if loser != nil {
			loser.Close()
			l.refused(reason)
		}
		if loser != c {
			return c, nil
		}
	}
}

// network is the key that an address is counted under; "" is exempt.
func (l *fairListener) network(a net.Addr) string {
	peer, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	addr := peer.Addr().Unmap()
	if slices.ContainsFunc(l.exempt, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return ""
	}
	return ca.Network(addr)
}

// admit counts c, and names the connection that must close for it: nil, c itself, or another.
func (l *fairListener) admit(c *fairConn) (loser *fairConn, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.byAddress[c.network]
	if len(own) >= l.perAddress {
		return c, refusedAddress
	}
	if l.total >= l.max {
		most := own
		for _, conns := range l.byAddress {
			if len(conns) > len(most) {
				most = conns
			}
		}
		if len(most) < 2 || c.network != "" && len(most) <= len(own)+1 {
			return c, refusedFull
		}
		loser, reason = most[len(most)-1], refusedFull
		l.drop(loser)
	}
	l.total++
	c.counted = true
	if c.network != "" {
		l.byAddress[c.network] = append(l.byAddress[c.network], c)
	}
	return loser, reason
}

// drop counts a connection no more.
func (l *fairListener) drop(c *fairConn) {
	if !c.counted {
		return
	}
	c.counted = false
	l.total--
	if c.network == "" {
		return
	}
	conns := l.byAddress[c.network]
	i := slices.Index(conns, c)
	if conns = slices.Delete(conns, i, i+1); len(conns) == 0 {
		delete(l.byAddress, c.network)
		return
	}
	l.byAddress[c.network] = conns
}

// fairConn is counted until it is closed.
type fairConn struct {
	net.Conn
	of      *fairListener
	network string
	counted bool // of.mu guards it
}

// Close closes the connection and makes room for another.
func (c *fairConn) Close() error {
	err := c.Conn.Close()
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.drop(c)
	return err
}
