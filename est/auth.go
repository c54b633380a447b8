package est

import (
	"net/http"
	"net/netip"

	"github.com/deviceca/deviceca/ca"
)

// authenticate finds out who asks, by the TLS client certificate or by HTTP
// Basic (RFC 7030 §3.3.2, §3.2.3).
//
// Where both are offered the certificate decides, and the secret is not looked
// at: it spends no use and no attempt. A certificate that does not stand (lapsed,
// revoked, of another CA) leaves it to the secret, which is the fallback that
// §3.2.3 describes. A fault of ours is not a reason to fall back.
func (s *server) authenticate(r *http.Request) (ca.Requester, error) {
	if chain := r.TLS.PeerCertificates; len(chain) > 0 {
		requester, err := s.Authority.AuthenticateCertificate(r.Context(), chain)
		if err == nil && requester.RA != nil && r.TLS.DidResume {
			return ca.Requester{}, errResumed
		}
		if err == nil || !offersSecret(r) || ca.KindOf(err) != ca.Unauthenticated {
			return requester, err
		}
	}
	return s.bySecret(r)
}

// may asks whether the requester may do something, and returns it. Where its certificate lapsed
// too long ago for that, the secret decides, if there is one.
func (s *server) may(r *http.Request, requester ca.Requester, deed ca.Deed) (ca.Requester, error) {
	err := s.Authority.MayActFor(r.Context(), requester, deed)
	if err == nil || requester.Lapsed == 0 || !offersSecret(r) || ca.KindOf(err) != ca.Unauthenticated {
		return requester, err
	}
	if requester, err = s.bySecret(r); err == nil {
		err = s.Authority.MayActFor(r.Context(), requester, deed)
	}
	return requester, err
}

// errResumed: a registration authority enrols others, so it must hold its key now, and not only have held it
// when the session began. It gets no tickets; one from before its registration may still be about.
var errResumed = ca.Errorf(ca.Unauthenticated, "a registration authority needs a full TLS handshake, and this session was resumed: connect again without resuming")

// bySecret authenticates by HTTP Basic.
func (s *server) bySecret(r *http.Request) (ca.Requester, error) {
	reference, secret, ok := r.BasicAuth()
	if !ok {
		return ca.Requester{}, ca.Errorf(ca.Unauthenticated,
			"show the device's certificate as TLS client certificate, or an enrolment credential by HTTP Basic (reference and secret)")
	}
	return s.Authority.AuthenticateSecret(r.Context(), reference, secret, remoteAddr(r))
}

func offersSecret(r *http.Request) bool {
	_, _, ok := r.BasicAuth()
	return ok
}

// anonymous reports whether the request offers nothing to authenticate it by.
func anonymous(r *http.Request) bool {
	return len(r.TLS.PeerCertificates) == 0 && r.Header.Get("Authorization") == ""
}

// remoteAddr is the peer's address; the zero Addr if there is none.
func remoteAddr(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr().Unmap()
}
