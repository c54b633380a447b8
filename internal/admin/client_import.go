package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
)

// ErrCutOff means that an import ended before its end. Running it again skips
// what is there.
var ErrCutOff = errors.New("the import was cut off; run it again, and what is in the inventory already is skipped")

// Import sends devices as they come from lines and hands on each report as it
// arrives; report is called from one goroutine. An error from lines ends the
// import after what came before. The counts are those of the last report, also with an error.
func (c *Client) Import(ctx context.Context, lines iter.Seq2[ImportLine, error], report func(ImportReport)) (ImportCounts, error) {
	var counts ImportCounts
	body, feed := io.Pipe()
	fed := make(chan error, 1)
	go func() {
		fed <- feedLines(feed, lines)
		feed.Close()
	}()
	resp, err := c.send(ctx, http.MethodPost, "/devices/import", nil, "application/x-ndjson", body)
	if err != nil {
		body.CloseWithError(err) // a feeder that waits for input ends with its next line
		return counts, err
	}
	defer resp.Body.Close()

	ended := ErrCutOff
	answers := bufio.NewScanner(resp.Body)
	answers.Buffer(nil, MaxBody)
	for answers.Scan() {
		var r ImportReport
		if err := json.Unmarshal(answers.Bytes(), &r); err != nil {
			ended = fmt.Errorf("the answer of %s cannot be read: %w", c.Where, err)
			break
		}
		switch {
		case r.Progress != nil:
			counts = *r.Progress
		case r.Done != nil:
			counts, ended = *r.Done, nil
		case r.Problem != nil:
			ended = r.Problem
		}
		report(r)
	}
	if err := answers.Err(); err != nil && ended != nil {
		ended = fmt.Errorf("%w (%w)", ended, err)
	}
	if ended != nil {
		body.CloseWithError(ended)
		return counts, ended
	}
	return counts, <-fed // it came to its end, or the server would not have
}

func feedLines(w io.Writer, lines iter.Seq2[ImportLine, error]) error {
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	for line, err := range lines {
		if err == nil {
			err = enc.Encode(line)
		}
		if err != nil {
			return errors.Join(err, out.Flush())
		}
	}
	return out.Flush()
}
