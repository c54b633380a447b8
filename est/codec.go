package est

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// MaxBody is the largest request body, in octets: ca.MaxCSR in base64 with room
// for line breaks and PEM markers.
const MaxBody = 2 * ca.MaxCSR

// A request body is one PKCS#10 request in one of these forms, told apart by
// their first octet; any Content-Transfer-Encoding is ignored (RFC 8951 §3):
//
//	base64   RFC 4648 §4 with padding. Spaces, tabs, CR and LF may stand anywhere (RFC 8951 §3.1).
//	PEM      One block, "CERTIFICATE REQUEST" or "NEW CERTIFICATE REQUEST", without headers. Text may stand around it
//	         (RFC 7468 §5.2): `openssl req -text` writes it, editors a byte order mark.
//	DER      As it is. The first octet of a request is 0x30, ASCII "0", and no base64 of one begins
//	         with "0" (it begins with "M"), so there is no doubt. RFC 8951 wants base64; some clients send this.

// decodeRequest finds the DER in a body. Errors are Malformed, or errTooLarge.
func decodeRequest(body []byte) ([]byte, error) {
	if len(body) > 0 && body[0] == 0x30 {
		return bounded(body)
	}
	text := bytes.Trim(body, " \t\r\n")
	if len(text) == 0 {
		return nil, ca.Errorf(ca.Malformed, "the body is empty: send a PKCS#10 certificate request in base64")
	}
	if _, block, found := bytes.Cut(text, beginLabel); found {
		if text, found = unarmour(block); !found {
			return nil, ca.Errorf(ca.Malformed, "the body is PEM, and not one CERTIFICATE REQUEST block: send one, whole, and no other")
		}
	}
	der, err := unpack(text)
	if err != nil {
		return nil, err
	}
	return bounded(der)
}

// decodeBase64 finds the DER of a message other than a PKCS#10 request: base64, or as it is.
func decodeBase64(body []byte, what string) ([]byte, error) {
	if len(body) > 0 && body[0] == 0x30 {
		return body, nil
	}
	der, err := unpack(body)
	if err == nil && len(der) == 0 {
		err = ca.Errorf(ca.Malformed, "the body is empty: send %s in base64", what)
	}
	return der, err
}

// unpack decodes base64 with any white space.
func unpack(text []byte) ([]byte, error) {
	packed := make([]byte, 0, len(text))
	for _, c := range text {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			packed = append(packed, c)
		}
	}
	n, err := base64.StdEncoding.Strict().Decode(packed, packed)
	if err != nil {
		return nil, &ca.Error{Kind: ca.Malformed, Reason: "the body is not base64 (RFC 4648 §4, with padding)", Err: err}
	}
	return packed[:n], nil
}

func bounded(der []byte) ([]byte, error) {
	if len(der) > ca.MaxCSR {
		return nil, errTooLarge
	}
	return der, nil
}

var beginLabel = []byte("-----BEGIN ")

// unarmour returns what stands between the markers of a PEM block that has begun, if it is the only one.
func unarmour(text []byte) ([]byte, bool) {
	label, rest, ok := bytes.Cut(text, []byte("-----"))
	if !ok || string(label) != "CERTIFICATE REQUEST" && string(label) != "NEW CERTIFICATE REQUEST" {
		return nil, false
	}
	inside, after, ok := bytes.Cut(rest, []byte("-----END "+string(label)+"-----"))
	return inside, ok && !bytes.Contains(after, beginLabel)
}

// encodeBody is base64 as one line and a line feed: strongSwan reads only the one
// line, libest wants the line feed, RFC 8951 §3.1 makes both right.
func encodeBody(der []byte) []byte {
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(der))+1)
	return append(base64.StdEncoding.AppendEncode(out, der), '\n')
}

// checkMediaType demands a media type, with any parameters. It is demanded even where the body would speak for itself: a form
// posted by a browser that holds a client certificate must never be taken for a request.
func checkMediaType(h http.Header, want string) error {
	mediaType, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(mediaType), want) {
		return wrongMediaType(want)
	}
	return nil
}

// maxDrain is how much of a refused body is read on.
const maxDrain = 1 << 20

// drain reads what is left of a body before its refusal is sent, as some clients
// look at no answer before they have sent all (curl over HTTP/2). It reports
// whether the end was reached, so that the connection can be used again.
func drain(r *http.Request) bool {
	_, err := io.CopyN(io.Discard, r.Body, maxDrain)
	return err == io.EOF
}

// limitTime puts a deadline on the body of every request, those that are refused
// unread too.
func (s *server) limitTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.BodyTimeout > 0 && r.ContentLength != 0 {
			// Not supported below some middleware: then there is no limit.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.BodyTimeout))
		}
		next.ServeHTTP(w, r)
	})
}

// readBody reads the body whole, whether its length was announced or not.
func (s *server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > MaxBody {
		return nil, errTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err == nil {
		// Left standing, the deadline would cancel the request's context while the
		// core works. After an error it stays: the rest of the body is not waited for.
		if s.BodyTimeout > 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		}
		return body, nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, errTooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errSlow
	}
	return nil, &ca.Error{Kind: ca.Malformed, Reason: "the body ended before it was complete", Err: err}
}
