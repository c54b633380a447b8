package ocsp

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// Answers begin before now, signed ahead or live, so that a client whose clock is slow takes them; they end and are renewed as ever.
func TestBackdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t, "issuing-1", time.Now)
		r := newResponder(t, c, func(o *Options) {
			o.Backdate = func() time.Duration { return 24 * time.Hour }
			o.Validity = 12 * time.Hour
		})
		s := c.issue(1)
		for name, in := range map[string][]byte{
			"signed ahead": request(t, c, SHA1, nil, s.Big()), "live": request(t, c, SHA1, []byte("12345678"), s.Big()), "unknown": request(t, c, SHA1, nil, serial(7).Big()),
		} {
			resp := ask(t, r, c, in)
			one := resp.Responses[0]
			if want := time.Now().Add(-24 * time.Hour); !one.ThisUpdate.Equal(want) || !resp.ProducedAt.Equal(time.Now()) {
				t.Errorf("%s: from %s, produced at %s; want from %s", name, one.ThisUpdate, resp.ProducedAt, want)
			}
			if name != "unknown" && !one.NextUpdate.Equal(time.Now().Add(12*time.Hour)) {
				t.Errorf("%s: ends %s", name, one.NextUpdate)
			}
		}
		filled := r.Stats().Filled
		time.Sleep(3 * time.Hour)
		r.refresh(t.Context())
		if r.Stats().Filled != filled {
			t.Error("an answer was signed again after a quarter of its life")
		}
		time.Sleep(3 * time.Hour)
		r.refresh(t.Context())
		if r.Stats().Filled != filled+1 {
			t.Error("an answer was not signed again before half of its life was over")
		}
	})
}

// If-Modified-Since saves the octets of an answer that has not changed, and never hides a revocation, whatever the date
// that the client made up.
func TestIfModifiedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t, "issuing-1", time.Now)
		r := newResponder(t, c, func(o *Options) { o.Backdate = func() time.Duration { return 5 * time.Minute } })
		s := c.issue(1)
		path := "/ocsp/" + base64.StdEncoding.EncodeToString(request(t, c, SHA1, nil, s.Big()))
		do := func(since string, header ...string) *httptest.ResponseRecorder {
			q := httptest.NewRequest("GET", path, nil)
			if since != "" {
				q.Header.Set("If-Modified-Since", since)
			}
			for i := 0; i < len(header); i += 2 {
				q.Header.Add(header[i], header[i+1])
			}
			w := httptest.NewRecorder()
			r.ServeHTTP(w, q)
			return w
		}
		date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		good := do("").Header().Get("Last-Modified")
		if good != date(0) {
			t.Errorf("Last-Modified %s: want the time of the signature", good)
		}
		time.Sleep(time.Minute)
		for name, c := range map[string]struct {
			w    *httptest.ResponseRecorder
			want int
		}{
			"its own date": {do(good), 304}, "a date since": {do(date(-30 * time.Second)), 304}, "a date before": {do(date(-2 * time.Minute)), 200},
			"a date to come": {do(date(time.Hour)), 200}, "no date": {do("yesterday"), 200},
			"with another If-None-Match": {do(good, "If-None-Match", `"x"`), 200}, "two dates": {do(good, "If-Modified-Since", good), 200},
		} {
			if c.w.Code != c.want || (c.want == 304) != (c.w.Body.Len() == 0) {
				t.Errorf("%s: %d with %d octets, want %d", name, c.w.Code, c.w.Body.Len(), c.want)
			}
		}
		time.Sleep(300 * time.Millisecond) // within the second of a client's date
		now := date(0)
		c.revoke(s, 1, 1)
		if err := r.Invalidate(t.Context(), c.name, s); err != nil {
			t.Fatal(err)
		}
		for _, since := range []string{good, now} {
			if w := do(since); w.Code != 200 {
				t.Errorf("a revocation is hidden from who has an answer of %s: %d", since, w.Code)
			}
		}
		time.Sleep(time.Minute)
		if w := do(date(-time.Second)); w.Code != 304 {
			t.Errorf("revoked, not modified: %d", w.Code)
		}
	})
}

// When the clock was ahead, answers and the responder's certificate begin in the future: both are made anew when it came back.
func TestClockCameBack(t *testing.T) {
	ahead := 30 * time.Minute
	now := func() time.Time { return time.Now().Add(ahead) }
	c := newCA(t, "issuing-1", now)
	r := newResponder(t, c, func(o *Options) {
		o.Backdate = func() time.Duration { return 5 * time.Minute }
		o.Shared = &sharedCache{kept: map[SharedKey][]byte{}}
	})
	in := request(t, c, SHA1, nil, c.issue(1).Big())
	ask(t, r, c, in)
	ahead = 0
	one := ask(t, r, c, in).Responses[0]
	if one.ThisUpdate.After(time.Now()) || c.issued != 2 {
		t.Errorf("an answer from %s, %d responder certificates", one.ThisUpdate, c.issued)
	}
	ahead = time.Hour
	ask(t, r, c, request(t, c, SHA1, nil, c.issue(2).Big()))
	ahead = 0
	filled := r.Stats().Filled
	r.refresh(t.Context())
	if r.Stats().Filled != filled+1 {
		t.Error("an answer that begins in the future is not signed again")
	}
}
