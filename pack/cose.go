package pack

// COSE header parameters (RFC 9052 §3.1, RFC 9360 §2).
const (
	headerAlg         = 1
	headerContentType = 3
	headerKid         = 4
	headerX5Chain     = 33
)

// contentType stands in the protected header of full packs. Deltas have none: 37 octets matter there, and their
// external_aad already keeps their signatures apart from all others.
const contentType = "application/vnd.deviceca.pack+cbor"

const tagSign1 = 18

// envelope is a tagged COSE_Sign1 (RFC 9052 §4.2) as packs use it: all headers protected, in one order.
//
//	18([<<{1: alg, ? 3: content type, 4: kid, ? 33: certificate}>>, {}, payload, signature])
type envelope struct {
	protected   []byte // the encoded map
	alg         int64
	contentType string // empty in deltas
	kid         []byte
	cert        []byte // DER, or nil
	payload     []byte
	signature   []byte
}

func (e *envelope) appendProtected(b []byte) []byte {
	n := uint64(2)
	if e.contentType != "" {
		n++
	}
	if e.cert != nil {
		n++
	}
	b = appendHead(b, majorMap, n)
	b = appendUint(b, headerAlg)
	b = appendHead(b, majorNint, uint64(-1-e.alg))
	if e.contentType != "" {
		b = appendText(appendUint(b, headerContentType), e.contentType)
	}
	b = appendBytes(appendUint(b, headerKid), e.kid)
	if e.cert != nil {
		b = appendBytes(appendUint(b, headerX5Chain), e.cert)
	}
	return b
}

func (e *envelope) append(b []byte) []byte {
	b = appendHead(b, majorTag, tagSign1)
	b = appendHead(b, majorArray, 4)
	b = appendBytes(b, e.protected)
	b = appendHead(b, majorMap, 0)
	b = appendBytes(b, e.payload)
	return appendBytes(b, e.signature)
}

// toBeSigned is the Sig_structure of RFC 9052 §4.4.
func (e *envelope) toBeSigned(aad []byte) []byte {
	b := make([]byte, 0, 64+len(e.protected)+len(aad)+len(e.payload))
	b = appendHead(b, majorArray, 4)
	b = appendText(b, "Signature1")
	b = appendBytes(b, e.protected)
	b = appendBytes(b, aad)
	return appendBytes(b, e.payload)
}

// sign1 reads a COSE_Sign1, its protected header whole.
func (r *reader) sign1() *envelope {
	r.expect(majorTag, tagSign1, "tag")
	r.expect(majorArray, 4, "COSE_Sign1")
	e := &envelope{protected: r.bytes("protected header")}
	r.expect(majorMap, 0, "unprotected header")
	e.payload = r.bytes("payload")
	e.signature = r.bytes("signature")
	return e
}

// parseEnvelope takes a pack (content type wanted) or delta (none) apart. What it returns points into data.
func parseEnvelope(data []byte, wantType string) (*envelope, error) {
	r := &reader{rest: data}
	e := r.sign1()
	e.contentType = wantType
	if err := r.end("COSE_Sign1"); err != nil {
		return nil, err
	}

	r = &reader{rest: e.protected}
	without := uint64(2)
	if wantType != "" {
		without++
	}
	n := r.head(majorMap, "protected header")
	if r.err == nil && n != without && n != without+1 {
		r.fail("protected header: %d parameters, want %d or %d", n, without, without+1)
	}
	r.expect(majorUint, headerAlg, "alg label")
	alg := r.head(majorNint, "alg")
	if r.err == nil && alg > 255 {
		r.fail("alg: unknown")
	}
	e.alg = -1 - int64(alg)
	if wantType != "" {
		r.expect(majorUint, headerContentType, "content type label")
		if got := r.str(majorText, "content type"); r.err == nil && string(got) != wantType {
			r.fail("content type: %.40q, want %q", got, wantType)
		}
	}
	r.expect(majorUint, headerKid, "kid label")
	e.kid = r.fixed(8, "kid")
	if n == without+1 {
		r.expect(majorUint, headerX5Chain, "x5chain label")
		if e.cert = r.bytes("x5chain"); r.err == nil && (len(e.cert) == 0 || len(e.cert) > maxCertificate) {
			r.fail("x5chain: %d octets, limit %d", len(e.cert), maxCertificate)
		}
	}
	return e, r.end("protected header")
}
