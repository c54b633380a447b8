package ca

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/deviceca/deviceca/internal/revlist"
)

// maxSerial is how many octets a serial number may have (RFC 5280 §4.1.2.2).
const maxSerial = 20

// compiledList is a revocation list to look up in: what it was made of may be
// forgotten, and a look-up costs some twenty comparisons in a list of a million.
type compiledList struct {
	sha256                 string // RevocationList.SHA256
	thisUpdate, nextUpdate time.Time
	entries                []listEntry // by serial
}

// listEntry has 24 octets.
type listEntry struct {
	serial [maxSerial]byte // big endian
	at     uint32          // Unix time; 0 is before 1970, the last second of 2105 is later, too
}

func (a listEntry) compare(b listEntry) int { return bytes.Compare(a.serial[:], b.serial[:]) }

// serialOf is a serial number as lists are looked up by; no CA gives one that does not fit. One below
// zero, which manufacturers give by mistake, is taken as the octets that encode it.
func serialOf(n *big.Int) (serial [maxSerial]byte, ok bool) {
	if n.Sign() < 0 {
		if new(big.Int).Not(n).BitLen() >= 8*maxSerial {
			return serial, false
		}
		n = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), 8*maxSerial))
	}
	if n.BitLen() > 8*maxSerial {
		return serial, false
	}
	n.FillBytes(serial[:])
	return serial, true
}

func compileList(sha256 string, l *revlist.List) (*compiledList, error) {
	c := &compiledList{sha256: sha256, thisUpdate: l.ThisUpdate, nextUpdate: l.NextUpdate, entries: make([]listEntry, 0, l.Count)}
	for line, err := range l.Lines() {
		if err != nil {
			return nil, err
		}
		serial, ok := serialOf(line.Serial)
		if !ok {
			return nil, fmt.Errorf("it lists serial number %.60x, which no certificate has: 1 to %d octets (RFC 5280 §4.1.2.2)", line.Serial, maxSerial)
		}
		at := min(max(line.Revoked.Unix(), 0), 1<<32-1)
		c.entries = append(c.entries, listEntry{serial, uint32(at)})
	}
	slices.SortFunc(c.entries, listEntry.compare)
	return c, nil
}

// find gives the time at which a serial was revoked.
func (c *compiledList) find(serial [maxSerial]byte) (at time.Time, found bool) {
	i, found := slices.BinarySearchFunc(c.entries, listEntry{serial: serial}, listEntry.compare)
	if !found {
		return at, false
	}
	return time.Unix(int64(c.entries[i].at), 0).UTC(), true
}

func (c *compiledList) current(now time.Time) bool {
	return !now.Before(c.thisUpdate) && !now.After(c.nextUpdate)
}

// revocations are the lists of all manufacturers in force for one format. A list is
// its CA's word, and so counts for every manufacturer that has this CA below its
// anchors: a second entry for the same factory is no way round the list of the first.
type revocations []*compiledManufacturer

// revoked looks a certificate up on the lists of issuer, which signed it. checked is
// false where there is none. It is an error, which the peer may read, if the
// certificate is on a list, or if none of the lists there are is current.
func (r revocations) revoked(cert, issuer *x509.Certificate, now time.Time) (checked bool, err error) {
	id := issuerKey(issuer)
	var newest *compiledList
	for _, m := range r {
		l := m.lists[id]
		if l == nil {
			continue
		}
		serial, ok := serialOf(cert.SerialNumber)
		if !ok {
			return false, errors.New("its serial number is none that a revocation list can name (RFC 5280 §4.1.2.2)")
		}
		if at, found := l.find(serial); found {
			return false, fmt.Errorf("certificate %x was revoked by its issuer, %s, at %s", cert.SerialNumber, nameText(cert.RawIssuer), at.Format(time.RFC3339))
		}
		if newest == nil || newest.nextUpdate.Before(l.nextUpdate) {
			newest = l
		}
	}
	switch {
	case newest == nil:
		return false, nil
	case !newest.current(now):
		return false, fmt.Errorf("the revocation list of its issuer, %s, was good from %s until %s: the CA's operator has to fetch the manufacturer's new one",
			nameText(cert.RawIssuer), newest.thisUpdate.UTC().Format(time.RFC3339), newest.nextUpdate.UTC().Format(time.RFC3339))
	}
	return true, nil
}

// revokedAll reports why none of the paths, leaf first and anchor last, is free of
// revocation. Where a CA was certified twice, one path may be and the other not.
func (r revocations) revokedAll(paths [][]*x509.Certificate, now time.Time) (refusal error) {
	for _, path := range paths {
		err := r.revokedOn(path, now)
		if err == nil {
			return nil
		}
		refusal = cmp.Or(refusal, err)
	}
	return refusal
}

func (r revocations) revokedOn(path []*x509.Certificate, now time.Time) error {
	for i, cert := range path[:len(path)-1] {
		if _, err := r.revoked(cert, path[i+1], now); err != nil {
			return err
		}
	}
	return nil
}

// nameText writes a Name as people do.
func nameText(raw []byte) string {
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &rdns); err != nil || len(rest) > 0 {
		return fmt.Sprintf("%.80x", raw)
	}
	return cmp.Or(rdns.String(), "a CA without a name")
}
