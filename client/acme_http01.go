package client

import (
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

const challengePath = "/.well-known/acme-challenge/" // RFC 8555 §8.3

// http01 answers http-01 challenges for as long as an order is being authorized: GET of
// the tokens it was given, and nothing else.
type http01 struct {
	server *http.Server

	mu      sync.Mutex
	answers map[string]string // by path
}

// listenHTTP01 opens the listener.
func listenHTTP01(address string) (*http01, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &Error{Kind: Local, Op: "http-01", Text: "nothing can be served on " + printable(address), Err: err,
			Hint: "ports below 1024 need rights: give them, or another port to which port 80 is forwarded"}
	}
	h := &http01{answers: map[string]string{}}
	h.server = &http.Server{Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog: log.New(io.Discard, "", 0)}
	h.server.SetKeepAlivesEnabled(false)
	go h.server.Serve(l)
	return h, nil
}

func (h *http01) add(token, keyAuthorization string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers[challengePath+token] = keyAuthorization
}

func (h *http01) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	answer, ok := h.answers[r.URL.Path]
	h.mu.Unlock()
	switch {
	case !ok:
		http.NotFound(w, r)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
		io.WriteString(w, answer)
	}
}

func (h *http01) close() { h.server.Close() }
