package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
)

// readDevices reads an inventory file: CSV with a header, a JSON array, or one
// JSON object per line, told apart by their first character. A line that cannot
// be read goes to bad; a file that cannot be read on ends the sequence with an error.
func readDevices(r io.Reader, bad func(admin.ImportFailure)) iter.Seq2[admin.ImportLine, error] {
	return readInventory(r, bad, func(in *bufio.Reader, skipped int, yield func(admin.ImportLine, error) bool) {
		readCSV(in, skipped, bad, yield)
	})
}

// readInventory reads the JSON forms, and leaves what is neither to text; skipped counts the lines before it.
func readInventory(r io.Reader, bad func(admin.ImportFailure), text func(in *bufio.Reader, skipped int, yield func(admin.ImportLine, error) bool)) iter.Seq2[admin.ImportLine, error] {
	in := bufio.NewReaderSize(r, 64<<10)
	return func(yield func(admin.ImportLine, error) bool) {
		first, skipped, err := firstByte(in)
		switch {
		case err == io.EOF:
			yield(admin.ImportLine{}, errors.New("the file is empty"))
		case err != nil:
			yield(admin.ImportLine{}, err)
		case first == '[':
			readArray(in, 1+skipped, bad, yield)
		case first == '{':
			readObjects(in, skipped, bad, yield)
		default:
			text(in, skipped, yield)
		}
	}
}

// firstByte looks at the first character that is not space or a byte order
// mark, and counts the lines before it.
func firstByte(in *bufio.Reader) (first byte, lines int, err error) {
	if bom, _ := in.Peek(3); bytes.Equal(bom, []byte("\xef\xbb\xbf")) {
		in.Discard(3)
	}
	for {
		b, err := in.ReadByte()
		if err != nil {
			return 0, 0, err
		}
		switch b {
		case '\n':
			lines++
		case ' ', '\t', '\r':
		default:
			return b, lines, in.UnreadByte()
		}
	}
}

// deviceRow is a device as files have it.
type deviceRow struct {
	ID    string       `json:"id"`
	Level string       `json:"level"`
	Group string       `json:"group"`
	State device.State `json:"state"`
}

func (d deviceRow) line(n int) admin.ImportLine {
	return admin.ImportLine{Line: n, ID: d.ID, Level: d.Level, Group: d.Group, State: d.State}
}

func decodeRow(raw []byte) (d deviceRow, err error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err = dec.Decode(&d); err == nil {
		if _, err = dec.Token(); err == io.EOF {
			return d, nil
		}
		err = errors.New("there is more after the object")
	}
	return d, errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// readObjects reads one JSON object per line.
func readObjects(in io.Reader, skipped int, bad func(admin.ImportFailure), yield func(admin.ImportLine, error) bool) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 4<<10), admin.MaxLine)
	n := skipped
	for lines.Scan() {
		n++
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		row, err := decodeRow(text)
		if err != nil {
			bad(admin.ImportFailure{Line: n, Error: err.Error()})
			continue
		}
		if !yield(row.line(n), nil) {
			return
		}
	}
	if err := lines.Err(); err != nil {
		yield(admin.ImportLine{}, fmt.Errorf("line %d: %w", n+1, err))
	}
}

// readArray reads an array of objects, one in memory at a time.
func readArray(in io.Reader, line int, bad func(admin.ImportFailure), yield func(admin.ImportLine, error) bool) {
	at := &lineCounter{r: in, line: line}
	dec := json.NewDecoder(at)
	if _, err := dec.Token(); err != nil {
		yield(admin.ImportLine{}, err)
		return
	}
	for dec.More() {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		// The decoder stands behind the value: count back over its own lines.
		n := at.at(dec.InputOffset()) - bytes.Count(raw, []byte("\n"))
		if err != nil {
			yield(admin.ImportLine{}, fmt.Errorf("line %d: %w", n, err))
			return
		}
		row, err := decodeRow(raw)
		if err != nil {
			bad(admin.ImportFailure{Line: n, Error: err.Error()})
			continue
		}
		if !yield(row.line(n), nil) {
			return
		}
	}
	if _, err := dec.Token(); err != nil {
		yield(admin.ImportLine{}, fmt.Errorf("line %d: the array does not end: %w", at.at(dec.InputOffset()), err))
		return
	}
	if _, err := dec.Token(); err != io.EOF {
		yield(admin.ImportLine{}, fmt.Errorf("line %d: there is more after the array", at.at(dec.InputOffset())))
	}
}

// lineCounter turns offsets into lines for a reader that reads ahead. Asked
// offsets must not go back.
type lineCounter struct {
	r        io.Reader
	read     int64
	line     int     // of everything before newlines[0]
	newlines []int64 // offsets not yet passed
}

func (c *lineCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for i, b := range p[:n] {
		if b == '\n' {
			c.newlines = append(c.newlines, c.read+int64(i))
		}
	}
	c.read += int64(n)
	return n, err
}

func (c *lineCounter) at(offset int64) int {
	passed, _ := slices.BinarySearch(c.newlines, offset)
	c.line += passed
	c.newlines = slices.Delete(c.newlines, 0, passed)
	return c.line
}

// readCSV reads a header and then rows.
func readCSV(in io.Reader, skipped int, bad func(admin.ImportFailure), yield func(admin.ImportLine, error) bool) {
	rows := csv.NewReader(in)
	rows.ReuseRecord = true
	rows.TrimLeadingSpace = true
	header, err := rows.Read()
	if err != nil {
		yield(admin.ImportLine{}, err)
		return
	}
	columns, err := csvColumns(header)
	if err != nil {
		yield(admin.ImportLine{}, err)
		return
	}
	for {
		record, err := rows.Read()
		if err == io.EOF {
			return
		}
		if e, ok := errors.AsType[*csv.ParseError](err); ok {
			if e.Err == csv.ErrFieldCount {
				bad(admin.ImportFailure{Line: e.StartLine + skipped, Error: fmt.Sprintf("%d fields, and the header has %d", len(record), len(columns))})
				continue
			}
			// A stray quote swallows lines: what follows cannot be trusted.
			yield(admin.ImportLine{}, fmt.Errorf("line %d: %w", e.StartLine+skipped, e.Err))
			return
		}
		if err != nil {
			yield(admin.ImportLine{}, err)
			return
		}
		n, _ := rows.FieldPos(0)
		out := admin.ImportLine{Line: n + skipped}
		for i, name := range columns {
			value := strings.TrimSpace(record[i])
			switch name {
			case "id":
				out.ID = value
			case "level":
				out.Level = value
			case "group":
				out.Group = value
			case "state":
				out.State = device.State(value)
			}
		}
		if !yield(out, nil) {
			return
		}
	}
}

// csvColumns reads the header.
func csvColumns(header []string) ([]string, error) {
	columns := make([]string, len(header))
	for i, h := range header {
		name := strings.ToLower(strings.TrimSpace(h))
		if !slices.Contains([]string{"id", "level", "group", "state"}, name) {
			return nil, fmt.Errorf("the first line must name the columns id, level, group, state; it has %q", h)
		}
		if slices.Contains(columns, name) {
			return nil, fmt.Errorf("column %q is named twice", name)
		}
		columns[i] = name
	}
	for _, must := range []string{"id", "level"} {
		if !slices.Contains(columns, must) {
			return nil, fmt.Errorf("the first line must name the columns id and level; %s is missing", must)
		}
	}
	return columns, nil
}
