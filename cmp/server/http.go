package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// MaxBody is the largest message read, in octets.
const MaxBody = 256 << 10

// limits are the bounds of one message: far above what a device needs.
var limits = cmp.Limits{Size: MaxBody, Items: 64, Nesting: 2}

const mediaType = "application/pkixcmp"

// operations are the last segments of paths (RFC 9483 §6.1) with the bodies that
// may begin there; what continues a transaction may come anywhere.
var operations = map[string][]cmp.BodyType{
	"":                   nil,
	"initialization":     {cmp.IR},
	"certification":      {cmp.CR},
	"keyupdate":          {cmp.KUR},
	"pkcs10":             {cmp.P10CR},
	"revocation":         {cmp.RR},
	"getcacerts":         {cmp.GenM},
	"getrootupdate":      {cmp.GenM},
	"getcertreqtemplate": {cmp.GenM},
	"getcrls":            {cmp.GenM},
	"nested":             {cmp.Nested},
}

// target is what the path says.
type target struct{ profile, operation string }

// parsePath takes a path under Prefix apart.
func parsePath(path string) (target, bool) {
	rest, ok := strings.CutPrefix(path, Prefix)
	rest = strings.TrimSuffix(rest, "/") // OpenSSL's client ends paths so
	if !ok || rest != "" && rest[0] != '/' {
		return target{}, false
	}
	var t target
	if named, ok := strings.CutPrefix(rest, "/p/"); ok {
		t.profile, rest, _ = strings.Cut(named, "/")
		if t.profile == "" {
			return target{}, false
		}
		t.operation = rest
	} else {
		t.operation = strings.TrimPrefix(rest, "/")
	}
	_, ok = operations[t.operation]
	return t, ok
}

// allows reports whether a body may come to the path.
func (t target) allows(b cmp.BodyType) bool {
	switch b {
	case cmp.CertConf, cmp.PollReq, cmp.POPDecR, cmp.ErrorMsg:
		return true
	}
	begins := operations[t.operation]
	return begins == nil || slices.Contains(begins, b)
}

// ServeHTTP answers one message (RFC 9811 §3). Errors of CMP are PKIMessages with
// status 200; only what is wrong with HTTP itself is an HTTP error.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	where, body, err := s.read(w, r)
	if low, ok := errors.AsType[*httpError](err); ok {
		s.note(r.Context(), r.RemoteAddr, "other", low.outcome, err, start)
		if low == errMethod {
			w.Header().Set("Allow", http.MethodPost)
		}
		// Some clients look at no answer before they have sent all.
		if _, err := io.CopyN(io.Discard, r.Body, 2*MaxBody); err != io.EOF {
			w.Header().Set("Connection", "close")
		}
		http.Error(w, low.text, low.status)
		return
	}
	x := &exchange{Server: s, target: where, raw: body, address: r.RemoteAddr, now: s.Now(), room: new(atomic.Int64)}
	x.room.Store(maxLists)
	answer, err := x.answer(r.Context())
	if err != nil { // not even an error could be made
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(answer)))
	h.Set("Cache-Control", "no-store") // RFC 9811 §3.5
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(answer) // a client that went away is no fault of ours
}

// read gets the body, within bounds of size and time.
func (s *Server) read(w http.ResponseWriter, r *http.Request) (target, []byte, error) {
	where, ok := parsePath(r.URL.Path)
	given, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch {
	case !ok:
		return where, nil, errNoOperation
	case r.Method != http.MethodPost:
		return where, nil, errMethod
	case !strings.EqualFold(strings.TrimSpace(given), mediaType):
		return where, nil, errMediaType
	case r.ContentLength > MaxBody:
		return where, nil, errTooLarge
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(s.BodyTimeout)) // not supported below some middleware: then there is no limit
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case large:
		return where, nil, errTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return where, nil, errSlow
	case err != nil:
		return where, nil, errCut
	}
	// Left standing, the deadline would cancel the request while the core works.
	_ = control.SetReadDeadline(time.Time{})
	return where, body, nil
}

// note logs and counts.
func (s *Server) note(ctx context.Context, address, op, outcome string, err error, start time.Time) {
	if err != nil {
		level := slog.LevelInfo
		if outcome == cmp.SystemFailure.String() {
			level = slog.LevelError
		}
		s.Logger.LogAttrs(ctx, level, "refused", slog.String("protocol", "cmp"), slog.String("operation", op),
			slog.String("outcome", outcome), slog.String("address", address), slog.String("error", printable(err.Error())))
	}
	if s.Observe != nil {
		s.Observe(op, outcome, time.Since(start))
	}
}
