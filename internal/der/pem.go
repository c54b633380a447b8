package der

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"unicode/utf16"
)

var (
	bomUTF8    = []byte("\xef\xbb\xbf")
	beginLabel = []byte("-----BEGIN ")
)

// PEM reads all blocks of a text (RFC 7468), what stands before, between and after them
// aside (§5.2). Byte order marks are no part of it, at the beginning or where files were put
// together, and text in UTF-16 is read as well. A block that cannot be read is an error: pem.Decode
// passes it over, and the next one would be taken for it. No block at all is no error.
func PEM(text []byte) (blocks []*pem.Block, err error) {
	text = bytes.ReplaceAll(fromUTF16(text), bomUTF8, nil)
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	if begun := bytes.Count(text, beginLabel); begun != len(blocks) {
		return nil, fmt.Errorf("%d of %d PEM blocks cannot be read: each begins and ends at the start of a line (RFC 7468)", begun-len(blocks), begun)
	}
	return blocks, nil
}

// fromUTF16 gives text that begins with a byte order mark of UTF-16 as UTF-8.
func fromUTF16(text []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(text, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(text, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return text
	}
	units := make([]uint16, 0, len(text)/2)
	for rest := text[2:]; len(rest) >= 2; rest = rest[2:] {
		units = append(units, order.Uint16(rest))
	}
	return []byte(string(utf16.Decode(units)))
}
