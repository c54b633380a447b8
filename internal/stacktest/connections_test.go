package stacktest

import (
	"crypto/tls"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestConnectionsPerAddress: an address that has all its connections gets no more, and other
// addresses do not notice.
func TestConnectionsPerAddress(t *testing.T) {
	t.Parallel()
	h := newHome(t, "DEVICECA_LIMITS_CONNECTIONS_PER_ADDRESS=4", "DEVICECA_LIMITS_CONNECTIONS=6")
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: 5 * time.Second}
	open := func() net.Conn {
		t.Helper()
		c, err := from.Dial("tcp", h.https)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	// closed waits until the server has closed the connection; one that it keeps stays silent.
	closed := func(c net.Conn, patience time.Duration) bool {
		c.SetReadDeadline(time.Now().Add(patience))
		_, err := c.Read(make([]byte, 1))
		return err == io.EOF || errors.Is(err, syscall.ECONNRESET)
	}
	kept := []net.Conn{open(), open(), open(), open()}
	if !closed(open(), 4*time.Second) {
		t.Error("a fifth connection of an address is kept")
	}
	for i, c := range kept {
		if closed(c, time.Millisecond) {
			t.Errorf("connection %d was closed for it", i+1)
		}
	}
	// Six in all: the third of another address takes the newest of the first's.
	lamp := h.device(h.addDevice("lamp-1"))
	csr := newCSR(t, newKey(t), "lamp-1")
	if a, err := lamp.enroll(csr); err != nil || a.status != http.StatusOK {
		t.Fatalf("an honest device: %d %q %v", a.status, a.body, err)
	}
	for range 2 {
		c, err := tls.Dial("tcp", h.https, h.tlsConfig(nil))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if !closed(kept[3], 4*time.Second) {
		t.Error("the listener is full, and the address with most of its connections keeps them all")
	}
	if closed(kept[0], time.Millisecond) {
		t.Error("the oldest was closed, not the newest")
	}
}

// TestChainsAreBounded: a client certificate chain that no device has is refused in the handshake.
func TestChainsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	key := newKey(t)
	cert := selfSigned(t, key, "lamp-1", big.NewInt(1)).Raw
	config := h.tlsConfig(&tls.Certificate{Certificate: [][]byte{cert, cert, cert, cert, cert, cert, cert, cert, cert, cert, cert}, PrivateKey: key})
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config}}
	if resp, err := client.Get("https://" + h.https + "/.well-known/est/cacerts"); err == nil {
		resp.Body.Close()
		t.Error("a chain of 11 certificates is taken")
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{cert, cert, cert}, PrivateKey: key}, nil
	}
	resp, err := client.Get("https://" + h.https + "/.well-known/est/cacerts")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("a chain of 3: %s", resp.Status)
	}
}

// TestAdministratorsDoNotResume: a session ticket is no administrator's second key. Whoever shows no certificate resumes.
func TestAdministratorsDoNotResume(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	keys := t.TempDir()
	h.run("admin", "add", "ops", "--role", "operator", "--out", keys, "--home", h.dir)
	pair, err := tls.LoadX509KeyPair(filepath.Join(keys, "ops.crt"), filepath.Join(keys, "ops.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		cert    *tls.Certificate
		path    string
		resumes bool
	}{{"administrator", &pair, "/admin/v1/status", false}, {"anybody", nil, "/.well-known/est/cacerts", true}} {
		config := h.tlsConfig(c.cert)
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for again := range 2 {
			client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
			resp, err := client.Get("https://" + h.https + c.path)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if want := c.resumes && again == 1; resp.StatusCode != http.StatusOK || resp.TLS.DidResume != want {
				t.Errorf("%s, connection %d: %s, resumed %v; want 200, %v", c.name, again+1, resp.Status, resp.TLS.DidResume, want)
			}
		}
	}
}
