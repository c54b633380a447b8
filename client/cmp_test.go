package client

import (
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// cmpServer is a small CMP server that shares the tests' secret. Tests make it hostile.
type cmpServer struct {
	*httptest.Server
	t  testing.TB
	ca *testCA

	implicit bool                    // grant implicitConfirm
	edit     func(*x509.Certificate) // changes each certificate before it is signed
	public   crypto.PublicKey        // certified instead of the device's
	by       *testCA                 // issues instead of ca
	extra    [][]byte                // extraCerts beside the issuing CA's
	params   cmp.MACParams           // of the answers
	wait     time.Duration           // answers are to be polled for after this

	mu       sync.Mutex
	issued   *x509.Certificate
	confirms []cmp.CertStatus
	asked    []cmp.BodyType
}

func newCMPServer(t testing.TB, ca *testCA) *cmpServer {
	t.Helper()
	s := &cmpServer{t: t, ca: ca, by: ca}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// config enrols "sensor-1" at s with the good credential, into a fresh directory.
func (s *cmpServer) config(t testing.TB) Config {
	return Config{Dir: t.TempDir(), Protocol: "cmp", Server: s.URL, Device: "sensor-1", Trust: Trust{Roots: []*x509.Certificate{s.ca.root}},
		Credential: &Credential{Reference: testUser, Secret: testSecret}, Wait: time.Minute, Timeout: 10 * time.Second}
}

func (s *cmpServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
		return
	}
	m, err := cmp.Parse(body)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.asked = append(s.asked, m.Body.Type())
	answer := s.answer(m)
	answer.ExtraCerts = slices.Concat([][]byte{s.ca.issuing.Raw}, s.extra)
	mac, err := cmp.NewMAC([]byte(testUser), []byte(testSecret), s.params)
	if err == nil {
		err = answer.Protect(mac)
	}
	if err != nil {
		s.t.Error(err)
		return
	}
	w.Header().Set("Content-Type", "application/pkixcmp")
	w.Write(answer.Raw())
}

func (s *cmpServer) answer(m *cmp.Message) *cmp.Message {
	switch b := m.Body.(type) {
	case *cmp.CertRequests:
		if s.wait > 0 {
			return cmp.Reply(m, &cmp.PollReplies{Replies: []cmp.PollReply{{CheckAfter: s.wait}}}, time.Now())
		}
		return s.issue(m, b.Requests[0])
	case *cmp.General: // for CA certificates, which this server does not give
		return cmp.ReplyError(m, errors.New("not here"), time.Now())
	case *cmp.Confirmations:
		s.confirms = append(s.confirms, b.List...)
		return cmp.Reply(m, &cmp.Confirm{}, time.Now())
	}
	s.t.Errorf("a %s", m.Body.Type())
	return cmp.ReplyError(m, errors.New("not here"), time.Now())
}

func (s *cmpServer) issue(m *cmp.Message, r *cmp.CertReqMsg) *cmp.Message {
	public, err := x509.ParsePKIXPublicKey(r.Template.PublicKey)
	if err != nil {
		s.t.Error(err)
	}
	if s.public != nil {
		public = s.public
	}
	s.issued = s.by.leaf(s.t, "", public, func(c *x509.Certificate) {
		c.RawSubject = r.Template.Subject
		if s.edit != nil {
			s.edit(c)
		}
	})
	answer := cmp.Reply(m, &cmp.CertResponses{Of: cmp.IP, Responses: []cmp.CertResponse{{KeyPair: &cmp.KeyPair{Certificate: s.issued.Raw}}}}, time.Now())
	if s.implicit {
		answer.Header.GeneralInfo = cmp.Infos{cmp.ImplicitConfirm()}
	}
	return answer
}

// TestCMPConfirms: a certificate is checked before it is confirmed; one that is of no use is rejected, so that the CA revokes it.
func TestCMPConfirms(t *testing.T) {
	ca, foreign := newTestCA(t, "good"), newTestCA(t, "foreign")
	for _, tt := range []struct {
		name string
		set  func(*cmpServer)
		text string // "" is accepted
	}{
		{"good", func(*cmpServer) {}, ""},
		{"another key", func(s *cmpServer) { s.public = newKey(t).Public() }, "no certificate for our key"},
		{"another's chain", func(s *cmpServer) { s.by = foreign }, "does not chain"},
		{"another name", func(s *cmpServer) {
			s.edit = func(c *x509.Certificate) { c.RawSubject, c.Subject.CommonName = nil, "sensor-2" }
		}, "sensor-2"},
		{"expired", func(s *cmpServer) {
			s.edit = func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			}
		}, "expired"},
		{"a CA's", func(s *cmpServer) {
			s.edit = func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }
		}, "a CA's"},
		{"rubbish beside it", func(s *cmpServer) { s.extra = [][]byte{{0x30, 0}} }, "cannot be used"},
	} {
		for _, implicit := range []bool{false, true} {
			s := newCMPServer(t, ca)
			tt.set(s)
			s.implicit = implicit
			c := s.config(t)
			r, err := Run(t.Context(), c)
			switch {
			case tt.text != "":
				wantError(t, err, BadReply, tt.text)
				wantNoIdentity(t, c.Dir)
				if implicit && !strings.Contains(HintOf(err), "revoke") {
					t.Errorf("%s: hint %q", tt.name, HintOf(err))
				}
			case err != nil || r.Action != Enrolled:
				t.Errorf("%s: %+v, %v", tt.name, r, err)
			}
			switch {
			case implicit:
				if len(s.confirms) != 0 {
					t.Errorf("%s: confirmed unasked: %+v", tt.name, s.confirms)
				}
			case len(s.confirms) != 1 || s.confirms[0].Matches(s.issued.Raw) != nil:
				t.Errorf("%s: confirmed %+v", tt.name, s.confirms)
			case tt.text == "":
				if !s.confirms[0].Accepted() {
					t.Errorf("%s: rejected: %+v", tt.name, s.confirms[0].Status)
				}
			default:
				if info := s.confirms[0].Status; s.confirms[0].Accepted() || info.Status != cmp.Rejection || info.FailInfo != cmp.IncorrectData || len(info.Text) != 1 {
					t.Errorf("%s: accepted, or without a reason: %+v", tt.name, info)
				}
			}
		}
	}
}

// TestHostileCMPServer: what a server sends is bounded before it is verified, and so are its waits.
func TestHostileCMPServer(t *testing.T) {
	ca := newTestCA(t, "good")
	for _, tt := range []struct {
		name string
		set  func(*cmpServer)
		want Kind
		text string
	}{
		{"a MAC of long work", func(s *cmpServer) {
			s.params = cmp.MACParams{Kind: cmp.PBMAC1, Iterations: cmp.DefaultMaxWork, KeyLength: 32}
		}, BadReply, "iteration"},
		{"a MAC of longer work", func(s *cmpServer) { s.params = cmp.MACParams{Iterations: 2 * cmp.DefaultMaxWork} }, BadReply, "iteration"},
		{"a huge key", func(s *cmpServer) { s.extra = [][]byte{hugeRoot(t, 16384, 65537)} }, BadReply, "extraCerts 2: its RSA key has 16384 bits"},
		{"a long certificate", func(s *cmpServer) { s.extra = [][]byte{hugeRoot(t, 1<<19, 65537)} }, BadReply, "octets, and 65536 is the most"},
		{"certificates without end", func(s *cmpServer) { s.extra = slices.Repeat([][]byte{ca.root.Raw}, maxReplyCerts) }, BadReply, "33 extraCerts"},
		{"a wait of a century", func(s *cmpServer) { s.wait = 100 * 365 * 24 * time.Hour }, Pending, "asks to wait 876000h0m0s; this client waits 24h0m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newCMPServer(t, ca)
			tt.set(s)
			c := s.config(t)
			_, err := Run(t.Context(), c)
			wantError(t, err, tt.want, tt.text)
			wantNoIdentity(t, c.Dir)
			if e, ok := errors.AsType[*Error](err); !ok || e.RetryAfter > 24*time.Hour {
				t.Errorf("%+v", e)
			}
		})
	}
}
