package ocsp

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// scratch is what one request needs beside its answer; about 40 kB, used again.
type scratch struct {
	request Request
	text    [maxText]byte
	der     [MaxRequest + 3]byte
}

// maxText is a request of MaxRequest octets in base64, each character percent-encoded.
const maxText = 4 * (MaxRequest + 2) / 3

// Header values, shared by all answers: nothing in net/http changes them.
var (
	typeResponse = []string{"application/ocsp-response"}
	noStore      = []string{"no-store"}
)

// ServeHTTP answers GET (also HEAD) and POST as RFC 6960 appendix A has them.
// Whatever the question, the answer is an OCSP response with HTTP status 200, or
// 304 to a matching If-None-Match or If-Modified-Since; except other methods (405) and a POST that is
// not application/ocsp-request (415).
//
// The request in a GET is standard base64, percent-encoded or bare. A mux that
// cleans paths (net/http's) would fold a double slash in it: mount the responder
// where paths stay as they are, or in front of the mux.
func (r *Responder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	s := r.pool.Get().(*scratch)
	defer r.pool.Put(s)
	var in []byte
	switch q.Method {
	case http.MethodGet, http.MethodHead:
		in = s.fromPath(r.path(q))
	case http.MethodPost:
		mediaType, _, _ := strings.Cut(q.Header.Get("Content-Type"), ";")
		if !strings.EqualFold(strings.TrimSpace(mediaType), "application/ocsp-request") {
			http.Error(w, "send an OCSP request as application/ocsp-request", http.StatusUnsupportedMediaType)
			return
		}
		var err error
		if in, err = s.fromBody(q); err != nil {
			return // the asker is gone, or too slow
		}
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "ask with GET or POST", http.StatusMethodNotAllowed)
		return
	}
	e, status := r.answer(q.Context(), &s.request, in)
	if status != Successful {
		h := w.Header()
		h["Content-Type"], h["Cache-Control"] = typeResponse, noStore
		w.Write(ErrorResponse(status))
		return
	}
	r.write(w, q, e)
}

// path is the part of the URL path after the prefix, as the asker wrote it:
// base64 has slashes, and %2F is one.
func (r *Responder) path(q *http.Request) (path string, escaped bool) {
	path = q.URL.RawPath // set only where the escaping matters
	escaped = path != ""
	if !escaped {
		path = q.URL.Path
	}
	return strings.TrimLeft(strings.TrimPrefix(path, r.opts.Prefix), "/"), escaped // DER begins with M in base64
}

// fromPath decodes a GET; what is not base64 comes out empty, which is malformed too.
func (s *scratch) fromPath(path string, escaped bool) []byte {
	n := 0
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && escaped {
			if i+2 >= len(path) {
				return nil
			}
			hi, lo := unhex(path[i+1]), unhex(path[i+2])
			if hi|lo > 15 {
				return nil
			}
			c = hi<<4 | lo
			i += 2
		}
		// The decoder would skip line ends.
		if n == len(s.text) || c == '\r' || c == '\n' {
			return nil
		}
		s.text[n] = c
		n++
	}
	m, err := base64.StdEncoding.Strict().Decode(s.der[:], s.text[:n])
	if err != nil {
		return nil
	}
	return s.der[:m]
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// fromBody reads a POST; one that is too long comes out longer than MaxRequest, unread to the end.
func (s *scratch) fromBody(q *http.Request) ([]byte, error) {
	if q.ContentLength > MaxRequest {
		return s.der[:MaxRequest+1], nil
	}
	n, err := io.ReadFull(q.Body, s.der[:MaxRequest+1])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return s.der[:n], nil
}

// write sends an answer with the headers of draft-ietf-lamps-rfc5019bis §6.2.
func (r *Responder) write(w http.ResponseWriter, q *http.Request, e *entry) {
	h := w.Header()
	h["Content-Type"] = typeResponse
	h["Etag"] = e.etag[:]
	h["Last-Modified"] = e.window.lastModified[:]
	h["Expires"] = e.window.expires[:]
	h["Cache-Control"] = r.cacheControl(e.window)
	if match := q.Header["If-None-Match"]; len(match) > 0 && q.Method != http.MethodPost {
		for _, m := range match {
			if m == "*" || strings.Contains(m, e.etag[0]) {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
	}
	if e.unmodified(q, r.opts.Now()) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	// net/http sets the length of what fits its buffer by itself, for less.
	if n := len(e.head) + len(e.window.certs); n > 1500 {
		h["Content-Length"] = []string{strconv.Itoa(n)}
	}
	if _, err := w.Write(e.head); err == nil && len(e.window.certs) > 0 {
		w.Write(e.window.certs)
	}
}

// unmodified evaluates If-Modified-Since (RFC 9110 §13.1.3), which counts only without If-None-Match. A
// date to come was made by another clock. Dates have whole seconds: what a client has of the second of the
// revocation may say good.
func (e *entry) unmodified(q *http.Request, now time.Time) bool {
	field := q.Header["If-Modified-Since"]
	if len(field) != 1 || len(q.Header["If-None-Match"]) > 0 || q.Method == http.MethodPost {
		return false
	}
	since, err := http.ParseTime(field[0])
	if err != nil || since.After(now) || since.Unix() < e.window.signed {
		return false
	}
	return e.revocation == nil || since.Unix() > e.revocation.Time.Unix()
}

// cacheControl lets caches keep an answer until there is surely a newer one:
// half of its life is over, or MaxAge.
func (r *Responder) cacheControl(w *window) []string {
	now := r.opts.Now().Unix()
	last := w.control.Load()
	if last == nil || last.second != now {
		half := w.signed + (w.nextUpdate-w.signed)/2
		age := max(min(half-now, int64(r.opts.MaxAge/time.Second)), 0)
		last = &cacheControl{now, [1]string{"max-age=" + strconv.FormatInt(age, 10) + ", public, no-transform, must-revalidate"}}
		w.control.Store(last)
	}
	return last.header[:]
}
