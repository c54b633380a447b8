package publisher

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/deviceca/deviceca/pack"
)

// StateHeader carries the hash of the state that a pack or delta leads to, in
// hex: what the URL of the next delta names.
const StateHeader = "Pack-State"

// contentType is that of RFC 9052 §11.3.1.
const contentType = `application/cose; cose-type="cose-sign1"`

// delta is one that is signed, or about to be.
type delta struct {
	once  sync.Once
	bytes []byte
	err   error
}

var errParent = errors.New("no such parent")

// Full is the full pack published last, nil if there is none yet.
func (is *publication) newest() *full {
	is.mu.Lock()
	defer is.mu.Unlock()
	return is.full
}

// delta is the pack that turns the state called parent into the current one;
// nil if that is it already. Each is signed once, when it is first asked for.
func (is *publication) delta(parent pack.Hash) ([]byte, *pack.State, time.Time, error) {
	is.mu.Lock()
	from, to, by, made := is.past[parent], is.current, is.by, is.made
	if from == nil || to == nil {
		is.mu.Unlock()
		return nil, nil, made, errParent
	}
	if from == to || from.Hash() == to.Hash() {
		is.mu.Unlock()
		return nil, to, made, nil
	}
	d := is.deltas[parent]
	if d == nil {
		d = &delta{}
		is.deltas[parent] = d
	}
	is.mu.Unlock()
	d.once.Do(func() { d.bytes, d.err = from.Delta(to, by) })
	return d.bytes, to, made, d.err
}

// HandlerOptions configures a Handler.
type HandlerOptions struct {
	Prefix string // of the URL path, "/pack"
	// Resolve turns an alias into the name of a generation; names pass through.
	Resolve func(name string) string
	// MaxAge bounds how long HTTP caches keep a full pack. Default 5 min.
	MaxAge time.Duration
}

var (
	fullPath  = regexp.MustCompile(`^/([a-z0-9-]{1,64})\.cbor$`)
	deltaPath = regexp.MustCompile(`^/([a-z0-9-]{1,64})/delta/([0-9a-f]{64})\.cbor$`)
)

// Handler serves NAME.cbor, the full pack published last, and
// NAME/delta/PARENT.cbor, the delta from the state with the hash PARENT (hex) to
// the newest: 204 if PARENT is the newest, 404 if it is not known any more, for
// which the full pack helps. Both name the state they lead to in a header, StateHeader.
func (p *Publisher) Handler(opts HandlerOptions) http.Handler {
	if opts.Resolve == nil {
		opts.Resolve = func(name string) string { return name }
	}
	if opts.MaxAge == 0 {
		opts.MaxAge = 5 * time.Minute
	}
	return handler{p, opts}
}

type handler struct {
	*Publisher
	HandlerOptions
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "packs are read with GET", http.StatusMethodNotAllowed)
		return
	}
	if len(r.URL.Path) < len(h.Prefix) {
		http.NotFound(w, r)
		return
	}
	path := r.URL.Path[len(h.Prefix):]
	if m := fullPath.FindStringSubmatch(path); m != nil {
		if is := h.issuers[h.Resolve(m[1])]; is != nil {
			h.full(w, r, is)
			return
		}
	}
	if m := deltaPath.FindStringSubmatch(path); m != nil {
		if is := h.issuers[h.Resolve(m[1])]; is != nil {
			h.delta(w, r, is, m[2])
			return
		}
	}
	http.NotFound(w, r)
}

func (h handler) full(w http.ResponseWriter, r *http.Request, is *publication) {
	f := is.newest()
	if f == nil {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "no pack was published yet; try again", http.StatusServiceUnavailable)
		return
	}
	header := f.state.Header()
	age := max(min(h.MaxAge, header.NextUpdate.Sub(h.opts.Now())), 0)
	w.Header().Set("Expires", header.NextUpdate.Format(http.TimeFormat))
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d, no-transform, must-revalidate", int(age/time.Second)))
	h.write(w, r, f.state, f.made, "full", f.bytes)
}

func (h handler) delta(w http.ResponseWriter, r *http.Request, is *publication, parent string) {
	var hash pack.Hash
	if _, err := hex.Decode(hash[:], []byte(parent)); err != nil {
		http.NotFound(w, r)
		return
	}
	raw, state, made, err := is.delta(hash)
	if err != nil {
		w.Header().Set("Cache-Control", "no-store")
	}
	switch {
	case errors.Is(err, errParent):
		http.Error(w, "that state is not known any more; fetch the full pack, "+h.Prefix+"/"+is.Name+".cbor", http.StatusNotFound)
	case err != nil:
		h.opts.Log.Error("delta pack failed", "issuer", is.Name, "error", err)
		http.Error(w, "the delta cannot be made at the moment; fetch the full pack", http.StatusInternalServerError)
	case raw == nil:
		w.Header().Set("Cache-Control", "no-cache")
		name(w, state)
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Cache-Control", "no-cache") // the next state leads elsewhere
		h.write(w, r, state, made, parent[:16], raw)
	}
}

func name(w http.ResponseWriter, s *pack.State) string {
	h := s.Hash()
	text := hex.EncodeToString(h[:])
	w.Header().Set(StateHeader, text)
	return text
}

// write sends a pack with the time at which it was made, for thisUpdate is backdated; a time to come is no
// one's (RFC 9110 §8.8.2.1), nor a client's.
func (h handler) write(w http.ResponseWriter, r *http.Request, s *pack.State, made time.Time, from string, body []byte) {
	now := h.opts.Now()
	if made.After(now) {
		made = time.Time{}
	}
	if since, err := http.ParseTime(r.Header.Get("If-Modified-Since")); err == nil && since.After(now) {
		r = r.Clone(r.Context())
		r.Header.Del("If-Modified-Since")
	}
	w.Header().Set("ETag", `"`+from+"-"+name(w, s)[:32]+`"`)
	w.Header().Set("Content-Type", contentType)
	http.ServeContent(w, r, "", made, bytes.NewReader(body))
}
