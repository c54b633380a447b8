package crl

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/internal/revlist"
)

// Template is a list but for its entries:
//
//	CertificateList ::= SEQUENCE {
//	    tbsCertList         TBSCertList,
//	    signatureAlgorithm  AlgorithmIdentifier,
//	    signature           BIT STRING }
//	TBSCertList ::= SEQUENCE {
//	    version                 Version,          -- v2
//	    signature               AlgorithmIdentifier,
//	    issuer                  Name,
//	    thisUpdate              Time,
//	    nextUpdate              Time,
//	    revokedCertificates     SEQUENCE OF … OPTIONAL,   -- absent, not empty
//	    crlExtensions       [0] EXPLICIT Extensions }
type Template struct {
	Issuer     *x509.Certificate // gives the name and the key identifier
	Number     int64             // at least 1
	Base       int64             // the number of the base makes it a delta; 0: complete
	ThisUpdate time.Time
	NextUpdate time.Time
	// DistributionPoint makes it a partition: the URL that the certificates in
	// scope name in their CRL distribution points, in a critical
	// issuingDistributionPoint that also says onlyContainsUserCerts. The delta of a partition
	// carries that of its base, octet by octet (RFC 5280 §5.2.4).
	DistributionPoint string
	// Freshest is where the delta of a complete list is found; not in deltas (§5.2.6).
	Freshest string
}

// begin encodes TBSCertList up to nextUpdate, end what follows the entries.
func (t *Template) begin(alg *der.Signature) ([]byte, error) {
	switch {
	case t.Number < 1 || t.Base < 0 || t.Base > t.Number:
		return nil, fmt.Errorf("CRL number %d over base %d", t.Number, t.Base)
	case !t.ThisUpdate.Before(t.NextUpdate):
		return nil, errors.New("a CRL must end after it begins")
	case t.Base > 0 && t.Freshest != "":
		return nil, errors.New("a delta CRL names no freshest CRL (RFC 5280 §5.2.6)")
	case len(t.Issuer.SubjectKeyId) == 0:
		return nil, fmt.Errorf("%s has no subject key identifier, which its CRLs must name (RFC 5280 §5.2.1)", t.Issuer.Subject)
	}
	var e encoder
	dst := append([]byte{0x02, 1, 1}, alg.ID...)
	dst = append(dst, t.Issuer.RawSubject...)
	dst = e.time(dst, t.ThisUpdate)
	return e.time(dst, t.NextUpdate), nil
}

func (t *Template) end() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, revlist.ExtAKI, false, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(t.Issuer.SubjectKeyId) })
				})
			})
			addExtension(b, revlist.ExtNumber, false, func(b *cryptobyte.Builder) { b.AddASN1Int64(t.Number) })
			if t.Base > 0 {
				addExtension(b, revlist.ExtDelta, true, func(b *cryptobyte.Builder) { b.AddASN1Int64(t.Base) })
			}
			if t.DistributionPoint != "" {
				addExtension(b, revlist.ExtIDP, true, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						addPoint(b, t.DistributionPoint)
						b.AddBytes([]byte{0x81, 1, 0xff}) // onlyContainsUserCerts
					})
				})
			}
			if t.Freshest != "" {
				addExtension(b, revlist.ExtFreshest, false, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { addPoint(b, t.Freshest) })
					})
				})
			}
		})
	})
	return b.Bytes()
}

func explicit(n uint8) asn1.Tag { return asn1.Tag(n).Constructed().ContextSpecific() }

func addExtension(b *cryptobyte.Builder, id byte, critical bool, value cryptobyte.BuilderContinuation) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes([]byte{0x06, 3, 0x55, 0x1d, id})
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(asn1.OCTET_STRING, value)
	})
}

// addPoint writes distributionPoint [0] { fullName [0] { URI [6] } } (RFC 5280 §4.2.1.13).
func addPoint(b *cryptobyte.Builder, url string) {
	b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
		})
	})
}

// File is what a long list is built in; an *os.File open for reading and writing.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// Built says what was built.
type Built struct {
	Size    int64 // octets
	Entries int
}

const (
	chunkSize = 1 << 20
	// spill is from where on entries go to the file. It is also where a DER
	// length takes four octets, so that from then on it is known where in the file entries begin.
	spill = 1 << 24
)

// Build writes a signed list into f, which is empty, from its start. Entries
// must come in ascending order of serials, none twice. At most 17 MiB are held
// in memory, however long the list is (with Ed25519, all of it: that signature
// cannot be computed piece by piece). The limit of a list is 4 GiB. The caller syncs f.
// key must return no signature that it did not verify, as those of internal/keys do.
func Build(f File, t *Template, key crypto.Signer, entries iter.Seq2[Entry, error]) (Built, error) {
	b := builder{file: f}
	if err := b.build(t, key, entries); err != nil {
		return Built{}, err
	}
	return Built{b.size, b.count}, nil
}

// Create makes a signed list in memory: for short ones.
func Create(t *Template, key crypto.Signer, entries iter.Seq2[Entry, error]) ([]byte, error) {
	var out bytes.Buffer
	b := builder{out: &out}
	err := b.build(t, key, entries)
	return out.Bytes(), err
}

type builder struct {
	encoder
	file    File          // or
	out     *bytes.Buffer // if the list stays in memory
	chunks  [][]byte      // not yet in the file
	length  int64         // of all entries
	spilled int64         // of those in the file, which begin at offset
	offset  int64
	size    int64
}

func (b *builder) build(t *Template, key crypto.Signer, entries iter.Seq2[Entry, error]) error {
	alg, err := der.SignatureFor(key.Public())
	if err != nil {
		return err
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(t.Issuer.PublicKey) {
		return fmt.Errorf("the key is not that of %s", t.Issuer.Subject)
	}
	begin, err := t.begin(alg)
	if err != nil {
		return err
	}
	end, err := t.end()
	if err != nil {
		return err
	}
	b.delta = t.Base > 0
	b.offset = int64(len(begin)) + 3*6 // three headers with four octets of length
	for x, err := range entries {
		if err != nil {
			return err
		}
		if err := b.add(&x); err != nil {
			return err
		}
	}
	// 1. With the length known, everything before the entries is.
	head := begin
	if b.length > 0 {
		head = appendHeader(head, 0x30, b.length)
	}
	tbs := appendHeader(nil, 0x30, int64(len(head))+b.length+int64(len(end)))
	tbs = append(tbs, head...)
	// 2. Hash and sign.
	digest, err := alg.DigestOf(func(w io.Writer) error {
		return b.copy(w, tbs, end)
	})
	if err != nil {
		return err
	}
	signature, err := alg.Sign(key, digest)
	if err != nil {
		return err
	}
	// 3. The outermost length depends on the signature's.
	tail := append(append([]byte{}, end...), alg.ID...)
	tail = appendHeader(tail, 0x03, int64(len(signature))+1)
	tail = append(append(tail, 0), signature...)
	content := int64(len(tbs)) + b.length + int64(len(tail))
	if content > math.MaxUint32 {
		return errors.New("a CRL of more than 4 GiB: partition it")
	}
	front := append(appendHeader(nil, 0x30, content), tbs...)
	b.size = int64(len(front)) + b.length + int64(len(tail))
	if b.spilled == 0 {
		return b.copy(b.writer(), front, tail)
	}
	if err := b.flush(); err != nil {
		return err
	}
	if int64(len(front)) != b.offset {
		return errors.New("CRL entries are not where they belong in the file") // cannot be: length > spill
	}
	if _, err := b.file.WriteAt(front, 0); err != nil {
		return err
	}
	_, err = b.file.WriteAt(tail, b.offset+b.length)
	return err
}

func (b *builder) add(x *Entry) (err error) {
	n := len(b.chunks)
	if n == 0 || cap(b.chunks[n-1])-len(b.chunks[n-1]) < maxEntry {
		if b.file != nil && b.length >= spill {
			if err := b.flush(); err != nil {
				return err
			}
		} else {
			b.chunks = append(b.chunks, make([]byte, 0, min(chunkSize, 4096<<min(4*n, 8))))
		}
		n = len(b.chunks)
	}
	last := &b.chunks[n-1]
	before := len(*last)
	*last, err = b.append(*last, x)
	b.length += int64(len(*last) - before)
	return err
}

// flush moves what is in memory to the file, and keeps one chunk to go on with.
func (b *builder) flush() error {
	for _, c := range b.chunks {
		if _, err := b.file.WriteAt(c, b.offset+b.spilled); err != nil {
			return err
		}
		b.spilled += int64(len(c))
	}
	b.chunks = [][]byte{b.chunks[len(b.chunks)-1][:0]}
	return nil
}

// copy writes front, all entries, and tail.
func (b *builder) copy(w io.Writer, front, tail []byte) error {
	if _, err := w.Write(front); err != nil {
		return err
	}
	if b.spilled > 0 {
		buf := make([]byte, chunkSize/4)
		if _, err := io.CopyBuffer(w, io.NewSectionReader(b.file, b.offset, b.spilled), buf); err != nil {
			return fmt.Errorf("reading back CRL entries: %w", err)
		}
	}
	for _, c := range b.chunks {
		if _, err := w.Write(c); err != nil {
			return err
		}
	}
	_, err := w.Write(tail)
	return err
}

func (b *builder) writer() io.Writer {
	if b.file == nil {
		b.out.Grow(int(b.size))
		return b.out
	}
	return io.NewOffsetWriter(b.file, 0)
}

// appendHeader appends tag and length in DER.
func appendHeader(dst []byte, tag byte, length int64) []byte {
	switch {
	case length < 0x80:
		return append(dst, tag, byte(length))
	case length < 1<<8:
		return append(dst, tag, 0x81, byte(length))
	case length < 1<<16:
		return append(dst, tag, 0x82, byte(length>>8), byte(length))
	case length < 1<<24:
		return append(dst, tag, 0x83, byte(length>>16), byte(length>>8), byte(length))
	}
	return append(dst, tag, 0x84, byte(length>>24), byte(length>>16), byte(length>>8), byte(length))
}
