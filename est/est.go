// Package est serves Enrollment over Secure Transport (RFC 7030 as updated by
// RFC 8951) in front of the certificate authority:
//
//	GET  /.well-known/est/[LABEL/]cacerts         §4.1
//	POST /.well-known/est/[LABEL/]simpleenroll    §4.2.1
//	POST /.well-known/est/[LABEL/]simplereenroll  §4.2.2
//	POST /.well-known/est/[LABEL/]fullcmc         §4.3
//	POST /.well-known/est/[LABEL/]serverkeygen    §4.4
//	GET  /.well-known/est/[LABEL/]csrattrs        §4.5
//
// A label is the name of a certificate profile.
//
// One request goes a straight line, which is server.enroll: the body is read
// within bounds, the requester authenticated, the PKCS#10 request decoded, its
// proof of possession and its binding to the connection checked, the core asked, and the whole
// reply made before its first octet is sent. What a client is told is decided in errors.go alone.
package est

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/deviceca/deviceca/ca"
)

// Prefix is where every EST path begins (RFC 7030 §3.2.2).
const Prefix = "/.well-known/est/"

const defaultBodyTimeout = 10 * time.Second

type server struct{ Options }

// operation is one EST operation. Its serve returns a whole reply or an error that refuse translates.
type operation struct {
	name   string
	method string
	serve  func(s *server, w http.ResponseWriter, r *http.Request, label string) (*reply, error)
}

var operations = []operation{
	{"cacerts", http.MethodGet, (*server).cacerts},
	{"csrattrs", http.MethodGet, (*server).csrattrs},
	{"simpleenroll", http.MethodPost, (*server).simpleenroll},
	{"simplereenroll", http.MethodPost, (*server).simplereenroll},
	{"serverkeygen", http.MethodPost, (*server).serverkeygen},
	{"fullcmc", http.MethodPost, (*server).fullcmc},
}

// New makes the handler of everything under [Prefix]. Put it at that prefix of a
// router that hands paths on as they came (chi's Mount and Handle do;
// http.ServeMux redirects odd ones), on a TLS listener that requests client
// certificates and does not verify them (tls.RequestClientCert). HTTP/1.1 and
// HTTP/2 both do.
func New(opts Options) http.Handler {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.BodyTimeout == 0 {
		opts.BodyTimeout = defaultBodyTimeout
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &server{opts}
	mux := chi.NewRouter()
	mux.Use(s.limitTime)
	for _, op := range operations {
		for pattern, labelled := range map[string]bool{Prefix + op.name: false, Prefix + "{label}/" + op.name: true} {
			handler := func(w http.ResponseWriter, r *http.Request) { s.run(op, labelled, w, r) }
			mux.MethodFunc(op.method, pattern, handler)
			if op.method == http.MethodGet {
				mux.MethodFunc(http.MethodHead, pattern, handler)
			}
		}
	}
	mux.NotFound(func(w http.ResponseWriter, r *http.Request) {
		s.finish("other", time.Now(), w, r, nil, errNoOperation)
	})
	mux.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		s.finish("other", time.Now(), w, r, nil, wrongMethod(allowed(r.URL.Path)))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A chi router in front leaves its own routing state, which Mount points
		// past the prefix. Paths are matched whole here, wherever we stand.
		mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), chi.RouteCtxKey, (*chi.Context)(nil))))
	})
}

// allowed lists the methods of the operation that the path ends in, for Allow.
func allowed(urlPath string) string {
	for _, op := range operations {
		if op.name == path.Base(urlPath) && op.method == http.MethodPost {
			return "POST"
		}
	}
	return "GET, HEAD"
}

// run serves one request of one operation.
func (s *server) run(op operation, labelled bool, w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	label := chi.URLParam(r, "label")
	var answer *reply
	err := s.precheck(r, label, labelled)
	if err == nil {
		r, err = s.Proxies.client(r)
	}
	if err == nil {
		answer, err = op.serve(s, w, r, label)
	}
	s.finish(op.name, start, w, r, answer, err)
}

// precheck refuses what no operation wants to see.
func (s *server) precheck(r *http.Request, label string, labelled bool) error {
	switch {
	case r.TLS == nil:
		return errNoTLS
	case labelled && label == "": // "//" in the path
		return errNoOperation
	case labelled && !s.Authority.HasProfile(label):
		return ca.Errorf(ca.NotFound, "there is no certificate profile %q: leave the label out for the default", label)
	}
	return nil
}

// reply is a whole answer, made before its first octet is sent.
type reply struct {
	status      int
	contentType string
	header      http.Header
	body        []byte
	outcome     string // for Observe
	secret      bool   // the body is wiped when it was sent
}

// finish logs, counts and sends.
func (s *server) finish(op string, start time.Time, w http.ResponseWriter, r *http.Request, answer *reply, err error) {
	if err != nil {
		answer = refuse(err)
		if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
			answer = refuse(errGone)
		}
		if !drain(r) {
			answer.header.Set("Connection", "close")
		}
		s.logRefusal(op, r, answer, err)
	}
	if s.Observe != nil {
		s.Observe(op, answer.outcome, time.Since(start))
	}
	answer.send(w)
}

func (s *server) logRefusal(op string, r *http.Request, answer *reply, err error) {
	level := slog.LevelInfo
	if answer.status == http.StatusInternalServerError {
		level = slog.LevelError
	}
	s.Logger.LogAttrs(r.Context(), level, "refused", slog.String("protocol", "est"), slog.String("operation", op),
		slog.String("outcome", answer.outcome), slog.Int("status", answer.status),
		slog.String("address", r.RemoteAddr), slog.String("error", ca.OneLine(err.Error(), maxLogged)))
}
