package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
)

// readyTimeout is how long token and database may take to show that they answer.
const readyTimeout = 3 * time.Second

// public is what both listeners offer to everyone: health, CA certificates
// (the caIssuers of RFC 5280 §4.2.2.1), and the roots' CRLs.
func (s *server) public(mux chi.Router) {
	mux.Get("/healthz", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok\n")) })
	mux.Get("/readyz", s.readyz)
	mux.Get("/ca/", s.serveIndex(certificateURL))
	mux.Get("/ca/index.json", s.serveIndex(certificateURL))
	mux.Get("/ca/{file}", s.caCert)
	mux.Get("/crl/", s.serveIndex(listURL))
	mux.Get("/crl/index.json", s.serveIndex(listURL))
	mux.Method(http.MethodGet, "/crl/{role}.pem", s.unlessClosed(http.HandlerFunc(s.crlBundle)))
	rootCRL := s.unlessClosed(http.HandlerFunc(s.rootCRL)) // the snapshot's may be older than one that is out
	mux.Method(http.MethodGet, "/crl/{root:(?:quarantine-)?root(?:-[0-9]+)?}.crl", rootCRL)
}

// readyz answers 200 if enrolment can work now, and 503 with what is away.
func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	answer := map[string]string{}
	status := http.StatusOK
	for part, err := range s.health(ctx) {
		answer[part] = "ok"
		if err != nil {
			status = http.StatusServiceUnavailable
			if closed, ok := errors.AsType[closedError](err); ok {
				answer[part] = closed.Error() // nothing in it is secret, and remindClosed logs it
				continue
			}
			// The reason is in the log: this path is open to everyone.
			s.log.Warn("not ready", "part", part, "err", err)
			answer[part] = "away"
			if errors.Is(err, store.ErrFull) {
				answer[part] = "its disk is full"
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if status != http.StatusOK {
		w.Header().Set("Retry-After", "5")
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

// caCert serves /ca/NAME.crt: one DER certificate (RFC 5280 §4.2.2.1, RFC 2585 §4.1), and /ca/ROLE.pem.
// A generation never changes; an alias does when the CA is rotated.
func (s *server) caCert(w http.ResponseWriter, r *http.Request) {
	if role, ok := strings.CutSuffix(chi.URLParam(r, "file"), ".pem"); ok {
		s.caBundle(w, r, role)
		return
	}
	name, ok := strings.CutSuffix(chi.URLParam(r, "file"), ".crt")
	der, found := s.service.CACert(name)
	if !ok || !found {
		http.Error(w, "there is no such CA certificate", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-cert")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Write(der)
}

// rootCRL serves the CRL that a root signed last (RFC 2585 §4.2).
func (s *server) rootCRL(w http.ResponseWriter, r *http.Request) {
	crl, err := s.store.Setting(r.Context(), crlSetting(s.service.Named(chi.URLParam(r, "root"))))
	switch {
	case errors.Is(err, ca.ErrNoRecord):
		http.Error(w, "there is no such root, or it is external and its CRL elsewhere", http.StatusNotFound)
		return
	case err != nil:
		w.Header().Set("Retry-After", "5")
		http.Error(w, "the database does not answer at the moment", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	sum := sha256.Sum256(crl)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(crl)) // when it was signed, nothing says: thisUpdate is backdated
}
