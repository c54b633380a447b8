package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// Servers that share a data key resume each other's sessions, in this window
// and the next; one that does not, or a key that is too old, means a full handshake.
func TestTickets(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"ca.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	start := time.Now().Truncate(ticketWindow).Add(time.Hour)
	mayResume := func(chain []*x509.Certificate) bool { return len(chain) == 1 && chain[0].Equal(leaf) }
	server := func(dataKey string, now *time.Time) *tickets {
		t.Helper()
		secret, err := ticketSecret([]byte(dataKey))
		if err != nil {
			t.Fatal(err)
		}
		s, err := newTickets(secret, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}, nil, func() time.Time { return *now }, mayResume)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, c := range []struct {
			name    string
			dataKey string
			later   time.Duration
			resumes bool
		}{
			{"at once", "shared", 0, true},
			{"in the next window", "shared", ticketWindow, true},
			{"by a server whose clock is behind", "shared", -2 * time.Hour, true},
			{"two windows on", "shared", 2 * ticketWindow, false},
			{"another CA", "other", 0, false},
		} {
			t.Run(tls.VersionName(version)+" "+c.name, func(t *testing.T) {
				now, then := start, start.Add(c.later)
				one, two := server("shared", &now), server(c.dataKey, &then)
				client := &tls.Config{RootCAs: roots, ServerName: "ca.test", MaxVersion: version, Certificates: []tls.Certificate{pair},
					ClientSessionCache: tls.NewLRUClientSessionCache(1), NextProtos: []string{"http/1.1"}}
				first := connect(t, one, client)
				second := connect(t, two, client)
				if first.DidResume || second.DidResume != c.resumes {
					t.Errorf("resumed: %v, then %v; want %v", first.DidResume, second.DidResume, c.resumes)
				}
				mayResume := one.mayResume
				one.mayResume, client.ClientSessionCache = func([]*x509.Certificate) bool { return false }, tls.NewLRUClientSessionCache(1)
				connect(t, one, client)
				if connect(t, two, client).DidResume {
					t.Error("a client resumed that may not")
				}
				one.mayResume = mayResume
				if len(second.PeerCertificates) != 1 || second.NegotiatedProtocol != "http/1.1" {
					t.Errorf("%d client certificates, protocol %q: the request could not be judged", len(second.PeerCertificates), second.NegotiatedProtocol)
				}
			})
		}
	}
}

// connect makes a connection and tells what the server saw of it.
func connect(t *testing.T, s *tickets, client *tls.Config) tls.ConnectionState {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	saw := make(chan tls.ConnectionState, 1)
	go func() {
		defer close(saw)
		raw, err := l.Accept()
		if err != nil {
			return
		}
		conn := tls.Server(raw, s.serve())
		defer conn.Close()
		if conn.Handshake() == nil {
			saw <- conn.ConnectionState()
			io.WriteString(conn, "x") // with it the client reads its tickets
		}
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	state, ok := <-saw
	if !ok {
		t.Fatal("the server's handshake failed")
	}
	return state
}

func TestTicketsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := newTickets(make([]byte, 32), &tls.Config{}, nil, time.Now, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go s.keepTurning(ctx)
		before := s.config.Load()
		for range 3 {
			time.Sleep(ticketWindow)
			synctest.Wait()
			after := s.config.Load()
			if after == before {
				t.Error("a window passed, and the keys are the same")
			}
			before = after
		}
		cancel()
	})
}
