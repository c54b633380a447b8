package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/deviceca/deviceca/ca"
)

// What is live, in one place: an index of the CAs and their lists, and files that hold those of every
// generation of a role. Who fetches them needs to know of no rotation.

// liveCA is a line of the indexes.
type liveCA struct {
	Name        string    `json:"name"`
	Role        string    `json:"role"`
	Stage       ca.Stage  `json:"stage"`
	Subject     string    `json:"subject"`
	Serial      string    `json:"serial"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Activates   time.Time `json:"activates,omitzero"`  // of one that is published
	LiveUntil   time.Time `json:"live_until,omitzero"` // of one that retires
	SHA256      string    `json:"sha256"`
	Certificate string    `json:"certificate"`
	CRL         string    `json:"crl,omitempty"`
	Delta       string    `json:"delta,omitempty"`
	Pack        string    `json:"pack,omitempty"`
}

// bundle is where what is live of one role lies in one file.
type bundle struct {
	Certificates string `json:"certificates"`
	CRLs         string `json:"crls,omitempty"`
	Packs        string `json:"packs,omitempty"`
}

type caIndex struct {
	CAs     []liveCA          `json:"cas"`
	Bundles map[string]bundle `json:"bundles"`
}

// index lists the CAs that are live.
func (s *server) index(ctx context.Context) (caIndex, error) {
	index, base := caIndex{CAs: []liveCA{}, Bundles: map[string]bundle{}}, s.cfg.PublicURL()
	here := func(root string) bool { // an external root's list is elsewhere
		_, err := s.store.Setting(ctx, crlSetting(root))
		return err == nil
	}
	for _, g := range s.service.Generations() {
		if !g.Stage.Live() {
			continue
		}
		cert, err := x509.ParseCertificate(g.Cert)
		if err != nil {
			return index, err
		}
		sum := sha256.Sum256(g.Cert)
		line := liveCA{Name: g.Name, Role: g.Role, Stage: g.Stage, Subject: cert.Subject.String(), Serial: hex.EncodeToString(cert.SerialNumber.Bytes()),
			NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, LiveUntil: g.LiveUntil, SHA256: hex.EncodeToString(sum[:]), Certificate: base + "/ca/" + g.Name + ".crt"}
		if g.Stage == ca.StagePublished {
			line.Activates = g.Since()
		}
		files := bundle{Certificates: base + "/ca/" + g.Role + ".pem"}
		if g.Subordinate() || g.IsRoot() && here(g.Name) {
			line.CRL, files.CRLs = base+"/crl/"+g.Name+".crl", base+"/crl/"+g.Role+".pem"
		}
		if g.Subordinate() {
			line.Delta, line.Pack, files.Packs = base+"/crl/"+g.Name+"-delta.crl", base+"/pack/"+g.Name+".cbor", base+"/pack/"+g.Role+packSequence
		}
		index.CAs = append(index.CAs, line)
		if g.Role != "cross" {
			index.Bundles[g.Role] = files
		}
	}
	return index, nil
}

// serveIndex answers with the index, as JSON to who asks for that, else as text: name, stage and the URL that choose gives.
func (s *server) serveIndex(choose func(liveCA) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		index, err := s.index(r.Context())
		if err != nil {
			s.log.Error("the index of CAs", "err", err)
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Vary", "Accept")
		w.Header().Set("Cache-Control", "public, max-age=60")
		if strings.HasSuffix(r.URL.Path, ".json") || strings.Contains(r.Header.Get("Accept"), "application/json") {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(index)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, line := range index.CAs {
			if url := choose(line); url != "" {
				fmt.Fprintf(w, "%s\t%s\t%s\n", line.Name, line.Stage, url)
			}
		}
	}
}

// caBundle serves /ca/ROLE.pem: the certificates of the role's CAs that are live.
func (s *server) caBundle(w http.ResponseWriter, _ *http.Request, role string) {
	live := s.service.Live(role)
	if len(live) == 0 {
		http.Error(w, "there is no such CA certificate", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Write(pemCerts(live))
}

// crlBundle serves /crl/ROLE.pem: the complete CRLs of the role's CAs that are live. It is all of them or an
// error: a list that lacks one generation's would fail the certificates of that one.
func (s *server) crlBundle(w http.ResponseWriter, r *http.Request) {
	role := chi.URLParam(r, "role")
	var lists []io.Reader
	for _, g := range s.service.LiveGenerations(role) {
		list, err := s.completeList(r, g)
		if err != nil {
			status, text := http.StatusServiceUnavailable, "a list is not published yet; try again"
			if errors.Is(err, ca.ErrNoRecord) {
				status, text = http.StatusNotFound, "the root is external and its CRL elsewhere"
			} else if !errors.Is(err, fs.ErrNotExist) {
				s.log.Warn("a CRL cannot be read", "issuer", g.Name, "err", err)
			}
			w.Header().Set("Retry-After", "5")
			http.Error(w, text, status)
			return
		}
		if closer, ok := list.(io.Closer); ok {
			defer closer.Close()
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Header().Set("Cache-Control", "public, max-age=60")
	for _, list := range lists {
		if err := writePEM(w, "X509 CRL", list); err != nil {
			return // the client went away
		}
	}
}

// completeList opens the complete CRL of a CA, DER.
func (s *server) completeList(r *http.Request, g ca.Generation) (io.Reader, error) {
	if g.Subordinate() {
		return os.Open(s.home.path("crl", g.Name+".crl"))
	}
	raw, err := s.store.Setting(r.Context(), crlSetting(g.Name))
	return strings.NewReader(string(raw)), err
}

// writePEM is pem.Encode (RFC 7468) for what may be too long to be kept in memory.
func writePEM(w io.Writer, label string, der io.Reader) error {
	if _, err := fmt.Fprintf(w, "-----BEGIN %s-----\n", label); err != nil {
		return err
	}
	for line := make([]byte, 48); ; {
		n, err := io.ReadFull(der, line)
		if n > 0 {
			if _, err := fmt.Fprintln(w, base64.StdEncoding.EncodeToString(line[:n])); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "-----END %s-----\n", label)
	return err
}

// packSequence ends the name of a file with the packs of a role's CAs: a CBOR sequence (RFC 8742).
const packSequence = ".cborseq"

// packBundle serves /pack/ROLE.cborseq: the full packs of the role's CAs that are live, all or an error.
func (r *revocation) packBundle(w http.ResponseWriter, q *http.Request) {
	role := strings.TrimSuffix(strings.TrimPrefix(q.URL.Path, "/pack/"), packSequence)
	live := r.system.service.LiveGenerations(role)
	if len(live) == 0 || !live[0].Subordinate() {
		http.NotFound(w, q)
		return
	}
	var all [][]byte
	for _, g := range live {
		full := r.packs.Newest(g.Name)
		if full == nil {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "a pack is not published yet; try again", http.StatusServiceUnavailable)
			return
		}
		all = append(all, full)
	}
	w.Header().Set("Content-Type", "application/cbor-seq")
	w.Header().Set("Cache-Control", "public, max-age=60")
	w.Write(slices.Concat(all...))
}

func certificateURL(c liveCA) string { return c.Certificate }

func listURL(c liveCA) string { return c.CRL }
