// Package dnstest is a DNS server for tests.
package dnstest

import (
	"encoding/binary"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Body is the content of a record.
type Body = dnsmessage.ResourceBody

// Question is what the DNS server was asked.
type Question struct {
	Name string // lower case, with the dot at its end
	Kind dnsmessage.Type
}

// Server is a small DNS server on loopback: UDP, and TCP for what does not fit.
type Server struct {
	Address string // host:port
	// answer gives the records for the n-th time that a question is asked, from 0; nothing at all is
	// NXDOMAIN. Names that end in "mute." are never answered.
	answer func(q Question, n int) []Body

	mu    sync.Mutex
	asked map[Question]int
}

// New serves until the test ends.
func New(t testing.TB, answer func(q Question, n int) []Body) *Server {
	t.Helper()
	s := &Server{answer: answer, asked: map[Question]int{}}
	stream, packets := listen(t)
	s.Address = stream.Addr().String()
	t.Cleanup(func() { stream.Close(); packets.Close() })
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			if reply := s.reply(buffer[:n], 1232); reply != nil {
				packets.WriteTo(reply, from)
			}
		}
	}()
	go func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var length uint16
				for binary.Read(c, binary.BigEndian, &length) == nil {
					query := make([]byte, length)
					if _, err := io.ReadFull(c, query); err != nil {
						return
					}
					reply := s.reply(query, 1<<16-1)
					c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
				}
			}()
		}
	}()
	return s
}

// listen finds a port that is free for both.
func listen(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for tries := 1; ; tries++ {
		stream, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp", stream.Addr().String())
		if err == nil {
			return stream, packets
		}
		stream.Close()
		if tries == 10 {
			t.Fatal(err)
		}
	}
}

func (s *Server) reply(query []byte, limit int) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := Question{strings.ToLower(m.Questions[0].Name.String()), m.Questions[0].Type}
	s.mu.Lock()
	n := s.asked[q]
	s.asked[q]++
	s.mu.Unlock()
	if strings.HasSuffix(q.Name, "mute.") {
		return nil
	}
	out := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true, RecursionDesired: true}, Questions: m.Questions}
	name := m.Questions[0].Name
	for _, body := range s.answer(q, n) {
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 1}, Body: body}
		out.Answers = append(out.Answers, r)
		if alias, ok := body.(*dnsmessage.CNAMEResource); ok {
			name = alias.CNAME // what follows is the alias's
		}
	}
	if len(out.Answers) == 0 {
		out.RCode = dnsmessage.RCodeNameError
	}
	packed, err := out.Pack()
	if err != nil {
		return nil
	}
	if len(packed) > limit {
		out.Answers, out.Truncated = nil, true
		packed, _ = out.Pack()
	}
	return packed
}

// Questions are all that were asked.
func (s *Server) Questions() []Question {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.asked))
}

// Records of a question's type, out of all that a name has.
func Records(q Question, all ...Body) (out []Body) {
	for _, body := range all {
		kind := dnsmessage.TypeTXT
		switch body.(type) {
		case *dnsmessage.AResource:
			kind = dnsmessage.TypeA
		case *dnsmessage.AAAAResource:
			kind = dnsmessage.TypeAAAA
		case *dnsmessage.CNAMEResource:
			kind = q.Kind // goes with every type
		}
		if kind == q.Kind {
			out = append(out, body)
		}
	}
	return out
}

// A is an A record.
func A(s string) Body {
	return &dnsmessage.AResource{A: netip.MustParseAddr(s).As4()}
}

// AAAA is an AAAA record.
func AAAA(s string) Body {
	return &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(s).As16()}
}

// TXT is a TXT record of several strings.
func TXT(parts ...string) Body { return &dnsmessage.TXTResource{TXT: parts} }

// CNAME is a CNAME record; the name has a dot at its end.
func CNAME(s string) Body {
	return &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(s)}
}
