package main

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

// addressed is a connection from an address that only notes that it was closed.
type addressed struct {
	net.Conn
	from   string
	closed bool
}

func (a *addressed) RemoteAddr() net.Addr { return named(a.from) }
func (a *addressed) Close() error         { a.closed = true; return nil }

type named string

func (named) Network() string  { return "tcp" }
func (n named) String() string { return string(n) }

// queued accepts what is queued, and then is closed.
type queued struct {
	net.Listener
	conns []net.Conn
}

func (q *queued) Accept() (net.Conn, error) {
	if len(q.conns) == 0 {
		return nil, net.ErrClosed
	}
	c := q.conns[0]
	q.conns = q.conns[1:]
	return c, nil
}

func TestFairListener(t *testing.T) {
	source := &queued{}
	refused := map[string]int{}
	l := newFairListener(source, 6, 4, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, func(reason string) { refused[reason]++ })
	open := map[*addressed]net.Conn{}
	dial := func(from string) *addressed {
		t.Helper()
		a := &addressed{from: from}
		source.conns = append(source.conns, a)
		if c, err := l.Accept(); err == nil {
			open[a] = c
		} else if !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		return a
	}
	check := func(what string, a *addressed, closed bool, address, full int) {
		t.Helper()
		if a.closed != closed || refused[refusedAddress] != address || refused[refusedFull] != full {
			t.Errorf("%s: closed %v, want %v; refused %v, want address:%d full:%d", what, a.closed, closed, refused, address, full)
		}
	}
	first := dial("192.0.2.1:1000")
	dial("192.0.2.1:1001")
	dial("192.0.2.1:1002")
	newest := dial("192.0.2.1:1003")
	check("four of one address", newest, false, 0, 0)
	check("a fifth", dial("192.0.2.1:1004"), true, 1, 0)
	dial("[2001:db8::1]:1")
	six := dial("[2001:db8::2]:1") // the same /64
	check("the listener is full now", six, false, 1, 0)
	check("another address comes", dial("192.0.2.2:1"), false, 1, 1)
	check("the greediest loses its newest", newest, true, 1, 1)
	check("and keeps its oldest", first, false, 1, 1)
	check("the greediest comes again", dial("192.0.2.1:1005"), true, 1, 2)
	check("a proxy comes", dial("198.51.100.7:1"), false, 1, 3) // 2 of 192.0.2.1 and of the /64, one of 192.0.2.2
	check("a proxy again", dial("198.51.100.7:2"), false, 1, 4)
	for range 2 {
		dial("198.51.100.7:3") // takes the second of whoever has two
	}
	check("proxies come where each address has one left", dial("198.51.100.7:5"), true, 1, refused[refusedFull])
	if l.total != 6 {
		t.Errorf("%d connections counted, want 6", l.total)
	}
	for _, c := range open {
		c.Close()
		c.Close() // once counts
	}
	if l.total != 0 || len(l.byAddress) != 0 {
		t.Errorf("after all are closed, %d are counted, of %d addresses", l.total, len(l.byAddress))
	}
}
