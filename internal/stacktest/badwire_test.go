package stacktest

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// patience is how long the servers of these tests wait for slow clients.
const patience = time.Second

// slack is how much later than that a loaded machine may be.
const slack = 4 * time.Second

// raw opens a TLS connection to write HTTP/1.1 on by hand.
func (h *home) raw(t *testing.T) *tls.Conn {
	t.Helper()
	c := h.tlsConfig(nil)
	c.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", h.https, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// head is the start of an enrolment as it stands on the wire, without the lines
// about the body and the one that ends the header.
func head(g grant) string {
	basic := base64.StdEncoding.EncodeToString([]byte(g.Reference + ":" + g.Secret))
	return "POST " + enrollPath + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/pkcs10\r\nAuthorization: Basic " + basic + "\r\n"
}

// answers reads every answer until the server closes the connection or nothing
// comes for a moment.
func answers(t *testing.T, conn *tls.Conn) (statuses []int, bodies []string, closed bool) {
	t.Helper()
	in := bufio.NewReader(conn)
	for {
		conn.SetReadDeadline(time.Now().Add(patience + slack))
		if len(statuses) > 0 {
			conn.SetReadDeadline(time.Now().Add(time.Second))
		}
		resp, err := http.ReadResponse(in, nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return statuses, bodies, false
		}
		if err != nil {
			return statuses, bodies, true
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Errorf("the answer breaks off: %v", err)
		}
		statuses, bodies = append(statuses, resp.StatusCode), append(bodies, string(body))
	}
}

func TestOddHTTP(t *testing.T) {
	t.Parallel()
	h := newHome(t, "DEVICECA_LIMITS_READ_TIMEOUT=1s", "DEVICECA_LIMITS_HEADER_TIMEOUT=1s")
	g := h.addDevice("lamp-1")
	body := base64.StdEncoding.EncodeToString(newCSR(t, newKey(t), "lamp-1"))
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	hidden := "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n"
	length := func(n int) string { return fmt.Sprintf("Content-Length: %d\r\n", n) }
	cases := []struct {
		name   string
		send   string
		status []int // of every answer on the connection; none: it is cut
		says   string
		closes bool
	}{
		{"no length at all", head(g) + "\r\n" + body + "\r\n\r\n", []int{400, 400}, "empty", true}, // what follows is no request
		{"length of nothing", head(g) + length(0) + "\r\n", []int{400}, "empty", false},
		{"two lengths", head(g) + length(len(body)) + length(10) + "\r\n" + body, []int{400}, "", true},
		{"negative length", head(g) + "Content-Length: -1\r\n\r\n" + body, []int{400}, "", true},
		{"length with a sign", head(g) + "Content-Length: +10\r\n\r\n" + body, []int{400}, "", true},
		{"length that is no number", head(g) + "Content-Length: many\r\n\r\n" + body, []int{400}, "", true},
		{"length of an exabyte", head(g) + "Content-Length: 1152921504606846976\r\n\r\n" + body, []int{413}, "larger", true},
		{"unknown transfer coding", head(g) + "Transfer-Encoding: xchunked\r\n\r\n" + chunked, []int{501}, "", true},
		{"chunked twice", head(g) + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, []int{501}, "", true},
		{"chunked, then identity", head(g) + "Transfer-Encoding: chunked, identity\r\n\r\n" + chunked, []int{501}, "", true},
		{"chunk size that is no number", head(g) + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body + "\r\n0\r\n\r\n", []int{400}, "complete", true},
		{"chunk shorter than it says", head(g) + "Transfer-Encoding: chunked\r\n\r\n5\r\nMII\r\n0\r\n\r\n", []int{400}, "complete", true},
		{"space before the colon", head(g) + "Content-Length : 10\r\n\r\n" + body, []int{400}, "", true},
		{"no Host", strings.Replace(head(g), "Host: localhost\r\n", "", 1) + length(len(body)) + "\r\n" + body, []int{400}, "", true},
		{"two Hosts", strings.Replace(head(g), "Host:", "Host: a\r\nHost:", 1) + length(len(body)) + "\r\n" + body, []int{400}, "", true},
		{"control character in a header", head(g) + "X-Odd: a\x00b\r\n" + length(len(body)) + "\r\n" + body, []int{400}, "", true},
		{"HTTP/3.0", strings.Replace(head(g), "HTTP/1.1", "HTTP/3.0", 1) + "\r\n", []int{505}, "", true},
		{"no HTTP", "\x16\x03\x01 hello\r\n\r\n", []int{400}, "", true},
		{"10,000 header lines", head(g) + strings.Repeat("X-Many: of these\r\n", 10_000) + length(len(body)) + "\r\n" + body, []int{431}, "", true},
		{"one header line of 100 kB", head(g) + "X-Long: " + strings.Repeat("a", 100_000) + "\r\n" + length(len(body)) + "\r\n" + body, []int{431}, "", true},
		{"a path of 100 kB", strings.Replace(head(g), enrollPath, "/"+strings.Repeat("a", 100_000), 1) + "\r\n", []int{431}, "", true},
		// A length beside chunked is how requests are smuggled past a proxy: the
		// length must not count (RFC 9112 §6.3). By it, the second request would be part of the first.
		{"length and chunked", head(grant{Reference: "x", Secret: "y"}) + length(len("0\r\n\r\n")+len(hidden)) + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, []int{401, 200}, "", false},
	}
	before := h.ledger()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn := h.raw(t)
			go io.WriteString(conn, c.send) // the server may answer and close before it has read all
			statuses, bodies, closed := answers(t, conn)
			if fmt.Sprint(statuses) != fmt.Sprint(c.status) || closed != c.closes {
				t.Fatalf("got %v (closed: %v) %q, want %v (closed: %v)", statuses, closed, bodies, c.status, c.closes)
			}
			if len(bodies[0]) < 5 || len(bodies[0]) > 1000 || !strings.Contains(bodies[0], c.says) {
				t.Errorf("the body %q does not say %q", bodies[0], c.says)
			}
			unchanged(t, h, before)
		})
	}

	slow := []struct {
		name   string
		send   []string // with a pause after each
		status []int
		says   string
	}{
		{"body that never comes", []string{head(g) + length(len(body)) + "\r\n"}, []int{408}, "too long"},
		{"body that stops", []string{head(g) + length(len(body)) + "\r\n" + body[:40]}, []int{408}, "too long"},
		{"body that drips", append([]string{head(g) + length(len(body)) + "\r\n"}, strings.Split(body[:60], "")...), []int{408}, "too long"},
		{"chunks that stop", []string{head(g) + "Transfer-Encoding: chunked\r\n\r\n4\r\nMIIB\r\n"}, []int{408}, "too long"},
		{"body after a wrong path", []string{strings.Replace(head(g), "simpleenroll", "nosuch", 1) + length(len(body)) + "\r\n"}, []int{404}, ""},
		{"body after a wrong method", []string{strings.Replace(head(g), "POST", "PUT", 1) + length(len(body)) + "\r\n"}, []int{405}, ""},
		{"header that stops", []string{head(g)}, nil, ""},
		{"header that drips", append([]string{head(g)}, strings.Split(strings.Repeat("X: y\r\n", 10), "")...), nil, ""},
		{"nothing at all", []string{""}, nil, ""},
	}
	for _, c := range slow {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := h.raw(t)
			began := time.Now()
			go func() {
				for _, part := range c.send {
					if _, err := io.WriteString(conn, part); err != nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
			}()
			statuses, bodies, closed := answers(t, conn)
			took := time.Since(began)
			if c.status == nil && len(statuses) == 1 && statuses[0] == http.StatusBadRequest {
				statuses = nil // as good as a cut
			}
			if fmt.Sprint(statuses) != fmt.Sprint(c.status) || !closed {
				t.Fatalf("got %v (closed: %v) %q, want %v and a closed connection", statuses, closed, bodies, c.status)
			}
			if c.says != "" && !strings.Contains(bodies[0], c.says) {
				t.Errorf("the body %q does not say %q", bodies[0], c.says)
			}
			if took < patience/2 || took > patience+slack {
				t.Errorf("it took %s; the limit is %s", took, patience)
			}
		})
	}
	t.Run("TLS handshake that never comes", func(t *testing.T) {
		t.Parallel()
		conn, err := net.Dial("tcp", h.https)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began := time.Now()
		conn.SetDeadline(began.Add(patience + slack))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %s the connection is open still", time.Since(began))
		}
	})
	t.Run("plain HTTP on the TLS port", func(t *testing.T) {
		resp, err := http.Get("http://" + h.https + "/healthz")
		if err != nil || resp.StatusCode != http.StatusBadRequest {
			t.Fatalf("%v %v", resp, err)
		}
		resp.Body.Close()
	})
	t.Cleanup(func() { // after the parallel ones
		unchanged(t, h, before)
		if !t.Failed() {
			h.device(g).mustEnroll(t, "lamp-1")
		}
	})
}

func TestTLSVersions(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	ask := func(version uint16) error {
		c := h.tlsConfig(nil)
		c.MaxVersion = version
		conn, err := tls.Dial("tcp", h.https, c)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	expect := func(version uint16, works bool) {
		t.Helper()
		if err := ask(version); (err == nil) != works {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	expect(tls.VersionTLS13, true)
	expect(tls.VersionTLS12, false)
	h.stop()
	h.start("DEVICECA_TLS_MIN_VERSION=1.2")
	expect(tls.VersionTLS13, true)
	expect(tls.VersionTLS12, true)
	expect(tls.VersionTLS11, false)
	old := h.device(h.addDevice("lamp-1"))
	old.client.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	old.mustEnroll(t, "lamp-1")
	h.stop()
	if _, errs, err := h.try(nil, "config", "check", "--home", h.dir); err != nil {
		t.Errorf("config check: %v\n%s", err, errs)
	}
	h.env = []string{"DEVICECA_TLS_MIN_VERSION=1.1"}
	if _, errs, err := h.try(nil, "serve", "--home", h.dir); err == nil || !strings.Contains(errs, "tls.min_version") {
		t.Errorf("with TLS 1.1 it starts, or does not say why not: %v\n%s", err, errs)
	}
}
