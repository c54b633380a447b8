package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// HeadKind is the kind of a head: a checkpoint as it leaves the machine, in a
// line of a [HeadFile] and in the body of a webhook:
//
//	{"kind":"audit.head","time":"2030-01-01T00:00:00Z","sequence":17,"hash":HEX,"key":"audit","signature":BASE64}
//
// with "dropped" behind if the checkpoint states that.
const HeadKind = "audit.head"

// head is a checkpoint's JSON.
type head struct {
	Kind      string    `json:"kind"`
	Time      time.Time `json:"time"`
	Sequence  uint64    `json:"sequence"`
	Hash      string    `json:"hash"`
	Key       string    `json:"key"`
	Signature []byte    `json:"signature"`
	Dropped   uint64    `json:"dropped,omitempty"`
}

// MarshalJSON makes a head.
func (c Checkpoint) MarshalJSON() ([]byte, error) {
	return json.Marshal(head{HeadKind, c.Time, c.Sequence, hex.EncodeToString(c.Head[:]), c.Key, c.Signature, c.Dropped})
}

// UnmarshalJSON reads a head; anything else is an error.
func (c *Checkpoint) UnmarshalJSON(raw []byte) error {
	var h head
	if err := json.Unmarshal(raw, &h); err != nil {
		return err
	}
	hash, err := hex.DecodeString(h.Hash)
	if h.Kind != HeadKind || h.Sequence == 0 || err != nil || len(hash) != 32 {
		return errors.New("it is no head of an audit log")
	}
	*c = Checkpoint{h.Sequence, [32]byte(hash), h.Time.UTC(), h.Key, h.Signature, h.Dropped}
	return nil
}

// maxHeadLine is how many octets a line of heads may have: a webhook's body with
// a hundred events is the longest.
const maxHeadLine = 4 << 20

// ReadHeads reads heads as lines: of a [HeadFile], or bodies of webhooks, each
// perhaps behind what a log puts before a message. It gives each head to take,
// and returns how many lines have none: the last one may have been cut off in a crash, and a webhook's
// body need not have one.
func ReadHeads(r io.Reader, take func(Checkpoint) error) (without int, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxHeadLine)
	for lines.Scan() {
		begin := bytes.IndexByte(lines.Bytes(), '{')
		if begin < 0 {
			if len(bytes.TrimSpace(lines.Bytes())) > 0 {
				without++
			}
			continue
		}
		heads := headsIn(lines.Bytes()[begin:])
		if len(heads) == 0 {
			without++
		}
		for _, c := range heads {
			if err := take(c); err != nil {
				return without, err
			}
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return without, fmt.Errorf("a line has more than %d octets: give heads of an audit log, one to a line", maxHeadLine)
	}
	return without, lines.Err()
}

// headsIn reads the JSON values of a line, each a head or a webhook's body.
func headsIn(line []byte) (heads []Checkpoint) {
	for dec := json.NewDecoder(bytes.NewReader(line)); ; {
		var raw json.RawMessage
		if dec.Decode(&raw) != nil {
			return heads
		}
		var c Checkpoint
		if c.UnmarshalJSON(raw) == nil {
			heads = append(heads, c)
			continue
		}
		var body struct{ Head json.RawMessage }
		if json.Unmarshal(raw, &body) == nil && c.UnmarshalJSON(body.Head) == nil {
			heads = append(heads, c)
		}
	}
}

// HeadSource is the part of a log that heads are held against.
type HeadSource interface {
	// Entry finds one entry; false if the log has none of that sequence.
	Entry(ctx context.Context, sequence uint64) (Entry, bool, error)
}

// CheckHead checks that a log still has the entry that a head was signed for. The
// error is a *Fault if it has not, or if the head was not signed by the key; a
// head that the log agrees with needs no signature.
func CheckHead(ctx context.Context, src HeadSource, keys Keys, c Checkpoint) error {
	e, found, err := src.Entry(ctx, c.Sequence)
	if err != nil {
		return err
	}
	if found && e.Hash() == c.Head {
		return nil
	}
	name := fmt.Sprintf("the head of %s with sequence %d", c.Time.Format(time.RFC3339), c.Sequence)
	pub, err := keys(c.Key)
	if err == nil {
		err = c.Verify(pub)
	}
	switch {
	case err != nil:
		return fault(0, "%s was not signed by this CA's audit key (%v): it is another CA's, or was changed", name, err)
	case found:
		return fault(0, "the audit log was rewritten: %s is not in the log, which has another entry there", name)
	}
	return fault(0, "the audit log was truncated: %s is not in the log", name)
}
