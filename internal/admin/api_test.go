package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// examples is a request to each route that succeeds.
var examples = map[string]struct{ path, body string }{
	"GET /status":                          {"/status", ""},
	"GET /devices":                         {"/devices?level=software&limit=10", ""},
	"POST /devices":                        {"/devices", `{"id":"new","level":"software"}`},
	"POST /devices/import":                 {"/devices/import", `{"line":1,"id":"new","level":"software"}`},
	"GET /devices/{id}":                    {"/devices/lamp-1", ""},
	"POST /devices/{id}/claim":             {"/devices/box-1/claim", `{}`},
	"GET /manufacturers":                   {"/manufacturers", ""},
	"POST /manufacturers":                  {"/manufacturers", ""}, // takes a certificate: made in the test
	"GET /manufacturers/{name}":            {"/manufacturers/bolt", ""},
	"POST /manufacturers/{name}/crls":      {"/manufacturers/bolt/crls", `{"crls":"a list"}`},
	"POST /manufacturers/{name}/withdraw":  {"/manufacturers/bolt/withdraw", `{"format":"idevid"}`},
	"GET /ras":                             {"/ras", ""},
	"POST /ras":                            {"/ras", ""}, // likewise
	"DELETE /ras/{name}":                   {"/ras/line-1", ""},
	"POST /devices/{id}":                   {"/devices/lamp-1", `{"level":"brownfield"}`},
	"DELETE /devices/{id}":                 {"/devices/box-1", ""},
	"POST /devices/{id}/suspend":           {"/devices/lamp-1/suspend", `{}`},
	"POST /devices/{id}/resume":            {"/devices/lamp-2/resume", `{}`},
	"POST /devices/{id}/retire":            {"/devices/lamp-1/retire", `{"reason":"superseded"}`},
	"GET /credentials":                     {"/credentials?group=lamps", ""},
	"POST /credentials":                    {"/credentials", `{"group":"g","names":["g-*"],"level":"software","uses":3,"ttl":"48h"}`},
	"POST /credentials/{reference}/revoke": {"/credentials/a1/revoke", `{}`},
	"GET /certificates":                    {"/certificates?revoked=false&expires_before=2031-01-01T00:00:00Z&after=0", ""},
	"GET /certificates/{serial}":           {"/certificates/" + serialOf(1).String(), ""},
	"POST /certificates/{serial}/release":  {"/certificates/" + serialOf(4).String() + "/release", `{}`},
	"POST /publish":                        {"/publish", `{"ca":"issuing"}`},
	"POST /certificates/{serial}/revoke":   {"/certificates/" + serialOf(1).String() + "/revoke", `{"reason":"keyCompromise","invalidity_date":"2030-01-01T00:00:00Z"}`},
	"GET /requests":                        {"/requests?state=waiting&device=lamp-1&after=0", ""},
	"GET /requests/{id}":                   {"/requests/1", ""},
	"POST /requests/{id}/approve":          {"/requests/1/approve", `{}`},
	"POST /requests/{id}/deny":             {"/requests/1/deny", `{"reason":"not ours"}`},
	"GET /accounts":                        {"/accounts?device=lamp-1&after=0", ""},
	"GET /accounts/{id}":                   {"/accounts/1", ""},
	"POST /accounts/{id}/deactivate":       {"/accounts/1/deactivate", `{}`},
	"GET /cas":                             {"/cas", ""},
	"GET /cas/{name}":                      {"/cas/issuing", ""},
	"POST /cas":                            {"/cas", ""}, // takes a certificate: made in the test
	"POST /cas/{name}/request":             {"/cas/issuing/request", `{}`},
	"POST /cas/{name}/activate":            {"/cas/issuing-2/activate", `{}`},
	"POST /cas/{name}/revoke":              {"/cas/issuing-1/revoke", `{"reason":"keyCompromise"}`},
	"GET /policy":                          {"/policy", ""},
	"POST /policy":                         {"/policy", policyBody(string(policy.Default()))},
	"POST /policy/check":                   {"/policy/check", policyBody(string(policy.Default()))},
	"GET /policies":                        {"/policies", ""},
	"GET /policies/{version}":              {"/policies/in-force", ""},
	"POST /policy/explain":                 {"/policy/explain", `{"protocol":"est","requester":"credential","device":{"id":"lamp-1"},"key":"ecdsa-p256"}`},
	"GET /policy/explain/{serial}":         {"/policy/explain/" + serialOf(1).String(), ""},
	"GET /admins":                          {"/admins", ""},
	"POST /admins":                         {"/admins", ""}, // takes a certificate: made in the test
	"DELETE /admins/{name}":                {"/admins/someone", ""},
	"GET /audit":                           {"/audit?after=1&limit=5", ""},
	"POST /audit/verify":                   {"/audit/verify", `{}`},
	"POST /audit/heads":                    {"/audit/heads", `{"heads":[]}`},
	"POST /backup":                         {"/backup", `{"dir":"/backup/x"}`},
	"POST /recover":                        {"/recover", `{"crls":["/old/issuing-1.crl"],"dry_run":true}`},
}

func policyBody(source string) string {
	raw, _ := json.Marshal(Policy{Source: source})
	return string(raw)
}

func adminBody(t *testing.T, name string) string {
	cert, _ := signed(t, name, nil, nil, now.Add(time.Hour))
	raw, _ := json.Marshal(NewAdmin{Name: name, Role: RoleAuditor, Cert: encodePEM(cert.Raw)})
	return string(raw)
}

// example makes the example request of a route.
func example(t *testing.T, c *Client, rt route) error {
	t.Helper()
	ex, ok := examples[rt.method+" "+rt.path]
	if !ok {
		t.Fatalf("route %s %s has no example: add one", rt.method, rt.path)
	}
	body, media := ex.body, "application/json"
	switch {
	case rt.path == "/admins" && rt.method == http.MethodPost:
		body = adminBody(t, "newcomer")
	case rt.path == "/cas" && rt.method == http.MethodPost:
		cert, _ := signed(t, "issuing-2", nil, nil, now.Add(time.Hour))
		raw, _ := json.Marshal(NewCA{Name: "issuing-2", Role: "issuing", Generation: 2, Cert: encodePEM(cert.Raw)})
		body = string(raw)
	case rt.method == http.MethodPost && (rt.path == "/manufacturers" || rt.path == "/ras"):
		body = bodyWith(t, rt.path)
	case rt.path == "/devices/import":
		media = "application/x-ndjson"
	}
	resp, err := c.send(t.Context(), rt.method, ex.path, nil, media, strings.NewReader(body))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body) // an import goes on while its answer is read
		resp.Body.Close()
	}
	return err
}

// TestRoles sends a good request of every route in every role, over TLS and on
// the socket: what the table allows succeeds, and all else is refused before
// anything happens.
func TestRoles(t *testing.T) {
	for _, rt := range routes() {
		for _, role := range Roles() {
			t.Run(fmt.Sprintf("%s %s as %s", rt.method, rt.path, role), func(t *testing.T) {
				w := newWorld(t)
				w.admins = append(w.admins, ca.Admin{Name: "someone", Role: "auditor"})
				c := w.overTLS(t, w.enlist(t, "tester", role, now.Add(time.Hour)))
				err := example(t, c, rt)
				if allowed := slices.Contains(rt.roles, role) && !rt.local; allowed != (err == nil) {
					t.Fatalf("allowed: %v, answer: %v", allowed, err)
				}
				if p, ok := errors.AsType[*Problem](err); err != nil && (!ok || p.Status != 403 || p.Kind != "denied") {
					t.Errorf("refused with %#v, want 403", err)
				}
				if err != nil && len(w.actors) > 0 {
					t.Errorf("refused, and yet something was changed by %q", w.actors)
				}
				if i := slices.IndexFunc(w.actors, func(a string) bool { return a != "admin:tester" }); i >= 0 {
					t.Errorf("the audit log names %q", w.actors[i])
				}
			})
		}
		t.Run(fmt.Sprintf("%s %s on the socket", rt.method, rt.path), func(t *testing.T) {
			w := newWorld(t)
			w.admins = append(w.admins, ca.Admin{Name: "someone", Role: "auditor"})
			if err := example(t, w.overSocket(t), rt); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("admin:local(uid %d)", os.Getuid())
			if i := slices.IndexFunc(w.actors, func(a string) bool { return a != want }); i >= 0 {
				t.Errorf("the audit log names %q, want %q", w.actors[i], want)
			}
		})
	}
}

// TestRoleTable pins who may do what, so that a change of the table is seen.
func TestRoleTable(t *testing.T) {
	for _, rt := range routes() {
		read := rt.method == http.MethodGet || rt.path == "/policy/explain" || rt.path == "/audit/verify" || rt.path == "/audit/heads"
		if auditor := slices.Contains(rt.roles, RoleAuditor); auditor != read {
			t.Errorf("%s %s: auditors may: %v; it only reads: %v", rt.method, rt.path, auditor, read)
		}
		if !slices.Contains(rt.roles, RoleAdmin) {
			t.Errorf("%s %s is closed to admins", rt.method, rt.path)
		}
	}
	if n := len(routes()); n != len(examples) {
		t.Errorf("%d routes and %d examples", n, len(examples))
	}
}

func TestCertificateIdentity(t *testing.T) {
	w := newWorld(t)
	stranger, strangerKey := signed(t, "stranger", nil, nil, now.Add(time.Hour))
	tests := []struct {
		name string
		c    *Client
		want string
	}{
		{"no certificate", w.overTLS(t), "takes a client certificate"},
		{"unknown key", w.overTLS(t, tlsPair(stranger.Raw, strangerKey)), "no administrator"},
		{"expired", w.overTLS(t, w.enlist(t, "old", RoleAdmin, now.Add(-time.Minute))), "is valid from"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.c.Status(t.Context())
			p, ok := errors.AsType[*Problem](err)
			if !ok || p.Status != 401 || !strings.Contains(p.Detail, tt.want) {
				t.Errorf("got %#v, want 401 with %q", err, tt.want)
			}
		})
	}
	t.Run("removed on an open connection", func(t *testing.T) {
		c := w.overTLS(t, w.enlist(t, "brief", RoleAdmin, now.Add(time.Hour)))
		if err := c.RemoveAdmin(t.Context(), "brief"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(t.Context()); err == nil {
			t.Error("a removed administrator still gets answers")
		}
	})
}

// TestErrorKinds covers the mapping of every kind, and that no detail of an
// internal fault gets out.
func TestErrorKinds(t *testing.T) {
	want := map[ca.Kind]int{ca.Internal: 500, ca.Malformed: 400, ca.BadPOP: 400, ca.BadAlg: 400, ca.BadKey: 400, ca.Unauthenticated: 401, ca.Denied: 403,
		ca.BadEvidence: 403, ca.Pending: 409, ca.Conflict: 409, ca.RateLimited: 429, ca.Unavailable: 503, ca.NotFound: 404}
	for _, kind := range ca.Kinds() {
		t.Run(kind.String(), func(t *testing.T) {
			w := newWorld(t)
			w.fail = &ca.Error{Kind: kind, Reason: "the reason", Rule: "the rule", RetryAfter: 1500 * time.Millisecond, Err: errors.New("hidden")}
			_, err := w.local().AddDevice(t.Context(), NewDevice{ID: "x", Level: "software"})
			p, ok := errors.AsType[*Problem](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			if p.Status != want[kind] || p.Kind != kind.String() || p.Type != "urn:deviceca:problem:"+kind.String() || p.Title == "" || p.RetryAfter != 2 {
				t.Errorf("got %+v", p)
			}
			if got := p.Error(); strings.Contains(got, "hidden") || (kind == ca.Internal) == strings.Contains(got, "the reason") {
				t.Errorf("it says %q", got)
			}
		})
	}
	if len(want) != len(ca.Kinds()) {
		t.Error("a kind is missing here")
	}
}

// TestBadRequests sends what must be refused, with the status it deserves.
func TestBadRequests(t *testing.T) {
	serial := serialOf(1).String()
	tests := []struct {
		name, method, path, media, body string
		status                          int
		says                            string
	}{
		{"unknown path", "GET", "/nothing", "", "", 404, "no such path"},
		{"wrong method", "DELETE", "/devices", "", "", 405, "not allowed"},
		{"unknown field", "POST", "/devices", "application/json", `{"id":"x","level":"software","colour":"red"}`, 400, `unknown field "colour"`},
		{"trailing data", "POST", "/devices", "application/json", `{"id":"x","level":"software"} {}`, 400, "more after"},
		{"wrong type of field", "POST", "/devices", "application/json", `{"id":7}`, 400, `field "id"`},
		{"no body", "POST", "/devices", "application/json", ``, 400, "empty"},
		{"not JSON", "POST", "/devices", "application/json", `id=x`, 400, ""},
		{"a form", "POST", "/devices", "application/x-www-form-urlencoded", `id=x`, 415, "application/json"},
		{"too large", "POST", "/policy/check", "application/json", `{"source":"` + strings.Repeat("x", MaxBody) + `"}`, 413, "larger"},
		{"bad ID", "POST", "/devices", "application/json", `{"id":"a b","level":"software"}`, 400, "position 2"},
		{"no level", "POST", "/devices", "application/json", `{"id":"x"}`, 400, "level is missing"},
		{"negative uses", "POST", "/devices", "application/json", `{"id":"x","level":"software","uses":-1}`, 400, "negative"},
		{"negative ttl", "POST", "/devices", "application/json", `{"id":"x","level":"software","ttl":"-1h"}`, 400, "duration"},
		{"there already", "POST", "/devices", "application/json", `{"id":"LAMP-1","level":"software"}`, 409, "is there"},
		{"unknown device", "GET", "/devices/other", "", "", 404, `"other"`},
		{"impossible device", "GET", "/devices/a%20b", "", "", 400, "device ID"},
		{"moving an unknown device", "POST", "/devices/other/suspend", "application/json", `{}`, 404, "other"},
		{"move without body", "POST", "/devices/lamp-1/suspend", "application/json", ``, 400, "empty"},
		{"impossible move", "POST", "/devices/lamp-1/resume", "application/json", `{}`, 409, "cannot become"},
		{"retire with a date", "POST", "/devices/lamp-1/retire", "application/json", `{"invalidity_date":"2030-01-01T00:00:00Z"}`, 400, "invalidity"},
		{"unknown state", "GET", "/devices?state=asleep", "", "", 400, "asleep"},
		{"unknown parameter", "GET", "/devices?colour=red", "", "", 400, "colour"},
		{"parameter twice", "GET", "/devices?level=a&level=b", "", "", 400, "more than once"},
		{"limit too large", "GET", "/devices?limit=1001", "", "", 400, "1 to 1000"},
		{"limit zero", "GET", "/devices?limit=0", "", "", 400, "1 to 1000"},
		{"bad paging key", "GET", "/certificates?after=x", "", "", 400, "after"},
		{"bad time", "GET", "/certificates?expires_after=soon", "", "", 400, "expires_after"},
		{"bad bool", "GET", "/certificates?revoked=perhaps", "", "", 400, "true or false"},
		{"bad serial", "GET", "/certificates/ff", "", "", 400, "serial"},
		{"unknown serial", "GET", "/certificates/" + serialOf(99).String(), "", "", 404, "serial"},
		{"reason", "POST", "/certificates/" + serial + "/revoke", "application/json", `{"reason":"removeFromCRL"}`, 400, "use one of"},
		{"unknown reason", "POST", "/certificates/" + serial + "/revoke", "application/json", `{"reason":"boredom"}`, 400, "boredom"},
		{"invalid in the future", "POST", "/certificates/" + serial + "/revoke", "application/json", `{"reason":"keyCompromise","invalidity_date":"2031-01-01T00:00:00Z"}`, 400, "future"},
		{"revoked already", "POST", "/certificates/" + serialOf(3).String() + "/revoke", "application/json", `{}`, 409, "already"},
		{"credential for both", "POST", "/credentials", "application/json", `{"device":"lamp-1","group":"g"}`, 400, "one device or one group"},
		{"credential for an unknown device", "POST", "/credentials", "application/json", `{"device":"other"}`, 404, "other"},
		{"names of a device", "POST", "/credentials", "application/json", `{"device":"lamp-1","names":["x"]}`, 400, "for groups"},
		{"group without names", "POST", "/credentials", "application/json", `{"group":"g","level":"software"}`, 400, "names"},
		{"bad glob", "POST", "/credentials", "application/json", `{"group":"g","level":"software","names":["["]}`, 400, "pattern"},
		{"another level than the device's", "POST", "/credentials", "application/json", `{"device":"lamp-1","level":"hsm"}`, 409, "software"},
		{"not on hold", "POST", "/certificates/" + serial + "/release", "application/json", `{}`, 409, "not on hold"},
		{"release of none", "POST", "/certificates/" + serialOf(99).String() + "/release", "application/json", `{}`, 404, "no certificate"},
		{"publish of none", "POST", "/publish", "application/json", `{"ca":"other"}`, 404, "other"},
		{"unknown credential", "POST", "/credentials/zz/revoke", "application/json", `{}`, 404, "zz"},
		{"unknown CA", "GET", "/cas/other", "", "", 404, "other"},
		{"bad policy", "POST", "/policy", "application/json", policyBody("version: 9"), 400, "version"},
		{"explain nothing", "POST", "/policy/explain", "application/json", `{"protocol":"est"}`, 400, "level"},
		{"no decision", "GET", "/policy/explain/" + serialOf(2).String(), "", "", 404, "without a policy decision"},
		{"the CA's own", "GET", "/policy/explain/" + serialOf(5).String(), "", "", 404, "one of the CA's own"},
		{"unknown role", "POST", "/admins", "application/json", `{"name":"x","role":"king","cert":""}`, 400, "king"},
		{"bad admin name", "POST", "/admins", "application/json", `{"name":"a/b","role":"admin","cert":""}`, 400, "a/b"},
		{"no certificate", "POST", "/admins", "application/json", `{"name":"x","role":"admin","cert":"x"}`, 400, "PEM"},
		{"unknown admin", "DELETE", "/admins/nobody", "", "", 404, "nobody"},
		{"relative list", "POST", "/recover", "application/json", `{"logs":["x"]}`, 400, "absolute"},
		{"relative backup", "POST", "/backup", "application/json", `{"dir":"x"}`, 400, "absolute"},
		{"import as JSON", "POST", "/devices/import", "application/json", `{}`, 415, "ndjson"},
	}
	w := newWorld(t)
	c := w.local()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, query, _ := strings.Cut(tt.path, "?")
			if query != "" {
				path += "?" + query
			}
			resp, err := c.send(t.Context(), tt.method, path, nil, tt.media, strings.NewReader(tt.body))
			if err == nil {
				resp.Body.Close()
				t.Fatal("it succeeded")
			}
			p, ok := errors.AsType[*Problem](err)
			if !ok || p.Status != tt.status || !strings.Contains(p.Detail, tt.says) {
				t.Errorf("got %#v, want %d with %q", err, tt.status, tt.says)
			}
		})
	}
}

// TestWays runs the same acts over each way to reach the API.
func TestWays(t *testing.T) {
	ways := map[string]func(*testing.T, *world) *Client{
		"in-process": func(_ *testing.T, w *world) *Client { return w.local() },
		"socket":     func(t *testing.T, w *world) *Client { return w.overSocket(t) },
		"https": func(t *testing.T, w *world) *Client {
			return w.overTLS(t, w.enlist(t, "tester", RoleAdmin, now.Add(time.Hour)))
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c, ctx := way(t, w), t.Context()
			g, err := c.AddDevice(ctx, NewDevice{ID: "pump", Level: "software", Uses: 2, TTL: Duration(time.Hour)})
			if err != nil || g.Secret != "s3cret" || g.Uses != 2 || !g.Expires.Equal(now.Add(time.Hour)) {
				t.Fatalf("add: %+v, %v", g, err)
			}
			var ids []string
			for d, err := range c.Devices(ctx, device.Filter{Prefix: "LAMP"}, "", 0) {
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, d.ID)
			}
			if !slices.Equal(ids, []string{"Lamp-1", "lamp-2"}) {
				t.Errorf("list: %v", ids)
			}
			show, err := c.Device(ctx, "lamp-1")
			if err != nil || len(show.Certificates) != 2 || len(show.Credentials) != 1 || show.More {
				t.Errorf("show: %+v, %v", show, err)
			}
			cert, err := c.Certificate(ctx, serialOf(1))
			if err != nil || cert.Decision.Rule == "" || cert.Device != "Lamp-1" {
				t.Errorf("certificate: %+v, %v", cert, err)
			} else if block, _ := pem.Decode([]byte(cert.PEM)); block == nil || !bytes.Equal(block.Bytes, w.certs[0].DER) {
				t.Error("the PEM is not the certificate")
			}
			moved, err := c.Retire(ctx, "lamp-1", "keyCompromise")
			if err != nil || moved.Device.State != device.Retired || len(moved.Revoked) != 2 || moved.Total != 2 || moved.Revoked[0].Revocation.Reason != 1 {
				t.Errorf("retire: %+v, %v", moved, err)
			}
			chain, err := c.Chain(ctx, "issuing")
			if err != nil || strings.Count(chain.PEM, "BEGIN CERTIFICATE") != 2 || !strings.HasSuffix(chain.PEM, encodePEM(w.issuers[0].Cert)) {
				t.Errorf("chain: %+v, %v", chain, err)
			}
			x, err := c.Replay(ctx, serialOf(1), "")
			if err != nil || len(x.Trace) == 0 || x.Stored == nil || x.Decision.Outcome != x.Stored.Outcome {
				t.Errorf("replay: %+v, %v", x, err)
			}
			if released, err := c.ReleaseCertificate(ctx, serialOf(4)); err != nil || released.Revocation != nil {
				t.Errorf("release: %+v, %v", released, err)
			}
			if made, err := c.Publish(ctx, ""); err != nil || !slices.Equal(made.CAs, []string{"issuing-1"}) {
				t.Errorf("publish: %+v, %v", made, err)
			}
			if err := c.RevokeCredential(ctx, "a1"); err != nil || w.creds[0].Revoked == nil {
				t.Errorf("credential: %v", err)
			}
			status, err := c.Status(ctx)
			if err != nil || !status.Healthy() || len(status.CAs) != 2 || status.Counts["devices"] != 2 || status.Policy != w.policy.Version() {
				t.Errorf("status: %+v, %v", status, err)
			}
		})
	}
}

// TestPaging lists more than a page, and less than is there.
func TestPaging(t *testing.T) {
	w := newWorld(t)
	w.devices = map[string]device.Device{}
	for i := range 2*MaxPage + 7 {
		id := fmt.Sprintf("d%05d", i)
		w.devices[id] = device.Device{ID: id, Level: "software"}
	}
	for _, limit := range []int{0, 1, MaxPage, MaxPage + 1, 3 * MaxPage} {
		n, last := 0, ""
		for d, err := range w.local().Devices(t.Context(), device.Filter{}, "d00003", limit) {
			if err != nil {
				t.Fatal(err)
			}
			if d.ID <= last {
				t.Fatalf("%s after %s", d.ID, last)
			}
			n, last = n+1, d.ID
		}
		want := 2*MaxPage + 3
		if limit > 0 {
			want = min(want, limit)
		}
		if n != want {
			t.Errorf("limit %d: %d devices, want %d", limit, n, want)
		}
	}
	w.fail = ca.Away("the database", nil)
	for _, err := range w.local().Devices(t.Context(), device.Filter{}, "", 0) {
		if p, ok := errors.AsType[*Problem](err); !ok || p.Status != 503 || p.RetryAfter == 0 {
			t.Errorf("got %v", err)
		}
	}
}

// TestStatusWhileAway: the status answers when the database does not.
func TestStatusWhileAway(t *testing.T) {
	w := newWorld(t)
	w.fail = ca.Away("the database", errors.New("disk full"))
	s, err := w.local().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Healthy() || s.Health["token"] != "ok" || s.Health["database"] == "ok" {
		t.Errorf("got %+v", s)
	}
}

func TestApplyPolicy(t *testing.T) {
	source := "# mine\n" + string(policy.Default())
	t.Run("good", func(t *testing.T) {
		w := newWorld(t)
		sum, err := w.local().ApplyPolicy(t.Context(), "my.yaml", source)
		if err != nil || sum.Version != w.policy.Version() || string(w.saved) != source {
			t.Errorf("%+v, %v; saved %d octets", sum, err, len(w.saved))
		}
	})
	t.Run("faulty", func(t *testing.T) {
		w := newWorld(t)
		before := w.policy
		_, err := w.local().ApplyPolicy(t.Context(), "my.yaml", "version: 1\nprofils: {}\n")
		p, ok := errors.AsType[*Problem](err)
		if !ok || len(p.Faults) < 2 || p.Faults[0].File != "my.yaml" || p.Faults[0].Line == 0 {
			t.Fatalf("got %#v", err)
		}
		if w.policy != before || w.saved != nil {
			t.Error("something was changed")
		}
	})
	t.Run("refused by the core", func(t *testing.T) {
		w := newWorld(t)
		w.fail = ca.Errorf(ca.Malformed, "lint: no")
		if _, err := w.local().ApplyPolicy(t.Context(), "my.yaml", source); err == nil || w.saved != nil {
			t.Errorf("err %v, saved %d octets", err, len(w.saved))
		}
	})
	t.Run("not saved", func(t *testing.T) {
		w := newWorld(t)
		w.api.SavePolicy = func([]byte) error { return errors.New("disk full") }
		_, err := w.local().ApplyPolicy(t.Context(), "my.yaml", source)
		if p, ok := errors.AsType[*Problem](err); !ok || p.Status != 503 || strings.Contains(p.Detail, "disk full") {
			t.Errorf("got %#v", err)
		}
	})
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v (%v), want 0600", info.Mode(), err)
	}
	if _, err := Listen(path); err == nil {
		t.Error("two servers listen on one socket")
	}
	l.Close()
	// A killed server leaves its socket behind.
	stale, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*ownerListener).Listener.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	stale.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	again, err := Listen(path)
	if err != nil {
		t.Fatalf("a stale socket stays in the way: %v", err)
	}
	again.Close()
	if _, err := Listen(filepath.Join(dir, strings.Repeat("long", 40), SocketName)); err == nil {
		t.Error("a path that is too long was taken")
	}
}

func TestServerURL(t *testing.T) {
	for _, bad := range []string{"", "ca.example", "http://ca.example:8443", "https://", "https://ca.example/path", "https://u:p@ca.example", "https://ca.example?x"} {
		if _, err := NewServerClient(bad, nil); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := NewServerClient("https://ca.example:8443/", nil); err != nil {
		t.Error(err)
	}
}

func TestReasons(t *testing.T) {
	for code := range 11 {
		name := ca.ReasonName(code)
		got, err := ca.ParseReason(strings.ToUpper(name))
		if wantErr := code == 7 || code == 8; wantErr != (err != nil) || err == nil && got != code {
			t.Errorf("%d is %q, which reads as %d, %v", code, name, got, err)
		}
	}
}

// TestCancelled: a client that goes away ends an in-process call.
func TestCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.local().Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// While the CA is closed administrators elsewhere are refused, whoever they are, and the host's are served.
func TestClosed(t *testing.T) {
	w := newWorld(t)
	c := w.overTLS(t, w.enlist(t, "tester", RoleAdmin, now.Add(time.Hour)))
	w.closed = ca.Closed()
	_, err := c.Status(t.Context())
	if p, ok := errors.AsType[*Problem](err); !ok || p.Status != 503 || p.RetryAfter != 120 || !strings.Contains(p.Detail, "restored from a backup") {
		t.Errorf("from elsewhere: %v", err)
	}
	if _, err := NewLocalClient(w.api.Socket()).Status(t.Context()); err != nil {
		t.Errorf("on the host: %v", err)
	}
	w.closed = nil
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("from elsewhere, once open: %v", err)
	}
}
