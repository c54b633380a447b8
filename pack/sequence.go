package pack

import "errors"

// maxSequence bounds a sequence: far more CA generations than live at a time.
const maxSequence = 64

// Split takes full packs and deltas that follow each other apart: a CBOR sequence (RFC 8742) such as
// /pack/issuing.cborseq, which holds the packs of all live generations. One pack is a
// sequence of one. Nothing in them is verified.
func Split(data []byte) (packs [][]byte, err error) {
	if len(data) == 0 {
		return nil, errors.Join(ErrMalformed, errors.New("input ends"))
	}
	for r := (&reader{rest: data}); len(r.rest) > 0; {
		if len(packs) == maxSequence {
			return nil, ErrLimit
		}
		before := r.rest
		r.sign1()
		if r.err != nil {
			return nil, r.err
		}
		size := len(before) - len(r.rest)
		packs = append(packs, before[:size:size])
	}
	return packs, nil
}
