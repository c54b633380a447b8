package server_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/cmp"
)

// device is our client against a server.
func (e *env) device(url string, id string, auth client.Auth) (*client.CMP, *client.Request) {
	e.t.Helper()
	root, _ := e.core.CACert("root")
	c := must[*client.CMP](e.t)(client.NewCMP(client.CMPConfig{Server: url, Wait: time.Millisecond, Now: e.now,
		Trust: client.Trust{Roots: []*x509.Certificate{must[*x509.Certificate](e.t)(x509.ParseCertificate(root))}}}))
	return c, &client.Request{Key: newKey(e.t), Auth: auth, Names: must[client.Names](e.t)(client.DeviceNames(id, client.AltNames{}))}
}

// grant is a device's credential, as the client takes it.
func (e *env) grant(p party, secret string) client.Auth {
	return client.Auth{Credential: &client.Credential{Reference: string(p.mac.Reference()), Secret: secret}}
}

func TestClient(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	auth := client.Auth{Certificate: &tls.Certificate{Certificate: [][]byte{own.crt.Raw}, PrivateKey: own.key}}

	// A lost answer: the same octets get it again.
	var answered atomic.Bool
	flaky := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := must[[]byte](t)(io.ReadAll(r.Body))
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !answered.Swap(true) {
			e.server.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		e.server.ServeHTTP(w, r)
	}))
	defer flaky.Close()
	c, req := e.device(flaky.URL, "lamp-1", auth)
	req.Save = func(state []byte) error { req.State = bytes.Clone(state); return nil }
	issued := e.core.Stats().Issued
	if _, err := c.Renew(t.Context(), req); client.KindOf(err) != client.Unreachable {
		t.Fatalf("without an answer: %v", err)
	}
	reply := must[*client.Reply](t)(c.Renew(t.Context(), req))
	if n := e.core.Stats().Issued - issued; n != 1 || reply.Outcome != "issue" || len(reply.Certificates) < 2 {
		t.Errorf("%d certificates issued; %+v", n, reply)
	}

	for name, step := range map[string]struct {
		id   string
		auth client.Auth
		want client.Kind
	}{
		"wrong secret":   {"lamp-2", e.grant(e.register("lamp-2", 1), "wrong"), client.Unauthenticated},
		"another's name": {"lamp-3", auth, client.Refused},
		"no proof":       {"lamp-1", client.Auth{}, client.Usage},
	} {
		c, req := e.device(e.http.URL, step.id, step.auth)
		if _, err := c.Enroll(t.Context(), req); err == nil || client.KindOf(err) != step.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever answers must be the CA: neither a device of the same CA nor a stranger
// nor an echo of earlier answers will do.
func TestClientBelievesTheCAAlone(t *testing.T) {
	e := newEnv(t)
	own, thief := e.enrolled("lamp-1"), e.enrolled("lamp-2")
	key := newKey(t)
	stranger := party{key: key, crt: issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true}, nil, key.Public(), key)}
	auth := client.Auth{Certificate: &tls.Certificate{Certificate: [][]byte{own.crt.Raw}, PrivateKey: own.key}}
	var old []byte
	for name, answer := range map[string]func(in *cmp.Message) []byte{
		"a device": func(in *cmp.Message) []byte {
			return e.protected(cmp.Reply(in, &cmp.CertResponses{Of: cmp.KUP, Responses: []cmp.CertResponse{{KeyPair: &cmp.KeyPair{Certificate: own.crt.Raw}}}}, e.now()), thief)
		},
		"a stranger": func(in *cmp.Message) []byte {
			return e.protected(cmp.Reply(in, &cmp.ErrorBody{Status: cmp.StatusInfo{Status: cmp.Rejection, FailInfo: cmp.SystemUnavail}}, e.now()), stranger)
		},
		"nobody": func(in *cmp.Message) []byte {
			return must[[]byte](t)(cmp.ReplyError(in, io.EOF, e.now()).Marshal())
		},
		"an earlier answer": func(in *cmp.Message) []byte { return old },
	} {
		if old == nil {
			old = e.postRaw("", e.protected(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil))), own))
		}
		impostor := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			in := must[*cmp.Message](t)(cmp.Parse(must[[]byte](t)(io.ReadAll(r.Body))))
			w.Header().Set("Content-Type", "application/pkixcmp")
			w.Write(answer(in))
		}))
		c, req := e.device(impostor.URL, "lamp-1", auth)
		if reply, err := c.Renew(t.Context(), req); client.KindOf(err) != client.Untrusted || err == nil {
			t.Errorf("%s was believed: %v, %v", name, reply, err)
		}
		impostor.Close()
	}
}
