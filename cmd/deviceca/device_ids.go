package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

// openInput opens a file, or standard input for "-", and says what to call it.
func openInput(cmd *cobra.Command, path string) (io.ReadCloser, string, error) {
	if path == "-" {
		return io.NopCloser(cmd.InOrStdin()), "standard input", nil
	}
	file, err := os.Open(path)
	return file, path, err
}

// readIDs reads device IDs: one to a line, with # for comments; or an inventory file of readDevices, of which only
// the IDs count and which may have other columns.
func readIDs(r io.Reader, bad func(admin.ImportFailure)) iter.Seq2[admin.ImportLine, error] {
	return readInventory(r, bad, readLines)
}

// readLines reads IDs from the lines of a list, or from the column "id" that a CSV header names.
func readLines(in *bufio.Reader, n int, yield func(admin.ImportLine, error) bool) {
	column := 0
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 4<<10), admin.MaxLine)
	for first := true; lines.Scan(); first = false {
		n++
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		fields, err := csv.NewReader(strings.NewReader(text)).Read()
		if err != nil {
			yield(admin.ImportLine{}, fmt.Errorf("line %d: %w", n, errors.Unwrap(err)))
			return
		}
		if first {
			if at := slices.IndexFunc(fields, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), "id") }); at >= 0 {
				column = at
				continue
			}
			if len(fields) > 1 {
				yield(admin.ImportLine{}, fmt.Errorf("line %d has %d columns, and none is called id: begin with a line of names, or give one ID to a line", n, len(fields)))
				return
			}
		}
		if column >= len(fields) {
			yield(admin.ImportLine{}, fmt.Errorf("line %d has no column %d, which is the id", n, column+1))
			return
		}
		if !yield(admin.ImportLine{Line: n, ID: strings.TrimSpace(fields[column])}, nil) {
			return
		}
	}
	if err := lines.Err(); err != nil {
		yield(admin.ImportLine{}, fmt.Errorf("line %d: %w", n+1, err))
	}
}
