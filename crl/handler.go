package crl

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// HandlerOptions configures a Handler. Dir is needed.
type HandlerOptions struct {
	Dir    string // of the Publisher
	Prefix string // of the URL path, "/crl"
	// Resolve turns an alias into the name of a generation ("issuing" into
	// "issuing-1"); names pass through. nil: there are no aliases.
	Resolve func(name string) string
	// MaxAge and DeltaMaxAge bound how long HTTP caches keep a list without
	// asking again, and hide a revocation. Default 1 min each.
	MaxAge      time.Duration
	DeltaMaxAge time.Duration
	Now         func() time.Time // default time.Now
}

// Handler serves the lists in a directory: NAME.crl, NAME-delta.crl, NAME/K.crl
// and NAME/K-delta.crl, with ETag, Last-Modified, Expires, Cache-Control, conditional and
// range requests (RFC 9110 §13, §14). It keeps nothing in memory and needs no
// Publisher: what lies there is served, also when it has expired, for an
// expired list tells a client more than none.
func Handler(opts HandlerOptions) http.Handler {
	if opts.MaxAge == 0 {
		opts.MaxAge = time.Minute
	}
	if opts.DeltaMaxAge == 0 {
		opts.DeltaMaxAge = time.Minute
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return handler{opts}
}

type handler struct{ opts HandlerOptions }

func (h handler) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "CRLs are read with GET", http.StatusMethodNotAllowed)
		return
	}
	f, delta, err := Files{h.opts.Dir, h.opts.Resolve}.open(strings.TrimPrefix(strings.TrimPrefix(q.URL.Path, h.opts.Prefix), "/"))
	if errors.Is(err, fs.ErrNotExist) {
		http.NotFound(w, q)
		return
	}
	if err == nil {
		defer f.Close()
		err = h.serve(w, q, f, delta)
	}
	if err != nil {
		http.Error(w, "the CRL cannot be read at the moment; try again", http.StatusInternalServerError)
	}
}

// serve writes an open list; it fails before anything is written.
func (h handler) serve(w http.ResponseWriter, q *http.Request, f *os.File, delta bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// A list ends with its signature, which is as good a validator as a digest of it all.
	var end [24]byte
	if _, err := f.ReadAt(end[:], max(info.Size()-int64(len(end)), 0)); err != nil {
		return err
	}
	_, nextUpdate, err := fileTimes(f)
	if err != nil {
		return err
	}
	now := h.opts.Now()
	age := h.opts.MaxAge
	if delta {
		age = h.opts.DeltaMaxAge
	}
	age = max(min(age, nextUpdate.Sub(now)), 0)
	header := w.Header()
	header.Set("Content-Type", "application/pkix-crl") // RFC 5280 §4.2.1.13, RFC 2585
	header.Set("ETag", `"`+hex.EncodeToString(end[:])+`"`)
	header.Set("Expires", nextUpdate.Format(http.TimeFormat))
	header.Set("Cache-Control", "max-age="+strconv.Itoa(int(age/time.Second))+", public, no-transform, must-revalidate")
	// thisUpdate is backdated: a list made since would look older than a client's date. A time
	// to come is no one's (RFC 9110 §8.8.2.1): a list of when the clock was ahead has no date.
	modified := info.ModTime()
	if modified.After(now) {
		modified = time.Time{}
	}
	if since, err := http.ParseTime(q.Header.Get("If-Modified-Since")); err == nil && since.After(now) {
		q = q.Clone(q.Context())
		q.Header.Del("If-Modified-Since")
	}
	http.ServeContent(w, q, "", modified, f)
	return nil
}

// fileTimes reads thisUpdate and nextUpdate of the list in a file.
func fileTimes(f *os.File) (this, next time.Time, err error) {
	var front [4096]byte
	n, _ := f.ReadAt(front[:], 0) // what is too short does not parse
	return readTimes(front[:n])
}

// readTimes reads thisUpdate and nextUpdate from the beginning of a list.
func readTimes(front []byte) (this, next time.Time, err error) {
	s := cryptobyte.String(front)
	// The two outer headers: the elements themselves end beyond what was read.
	for range 2 {
		if len(s) < 2 || s[0] != 0x30 {
			return this, next, malformed("no CertificateList")
		}
		size := 2
		if s[1]&0x80 != 0 {
			size += int(s[1] & 0x7f)
		}
		if !s.Skip(size) {
			return this, next, malformed("no CertificateList")
		}
	}
	if !s.SkipASN1(asn1.INTEGER) || !s.SkipASN1(asn1.SEQUENCE) || !s.SkipASN1(asn1.SEQUENCE) {
		return this, next, malformed("no TBSCertList of version 2")
	}
	if this, err = der.Time(&s); err == nil {
		next, err = der.Time(&s)
	}
	return this, next, err
}
