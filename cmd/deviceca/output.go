package main

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// output prints a command's answer, for people or with --json for programs.
type output struct {
	w    io.Writer
	errs io.Writer
	json bool
	now  time.Time
}

// withJSON adds --json to a command.
func withJSON(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func (a *app) output(cmd *cobra.Command) output {
	asJSON := false
	if f := cmd.Flags().Lookup("json"); f != nil {
		asJSON = f.Value.String() == "true"
	}
	return output{cmd.OutOrStdout(), cmd.ErrOrStderr(), asJSON, a.now()}
}

// print prints v as JSON, or lets facts say it: a name and a value each, one
// to a line. Empty values are left out.
func (o output) print(v any, facts func(fact func(name, value string))) error {
	if o.json {
		return o.writeJSON(v)
	}
	tab := tabwriter.NewWriter(o.w, 0, 8, 2, ' ', 0)
	facts(func(name, value string) {
		if value != "" {
			fmt.Fprintf(tab, "%s\t%s\n", name, value)
		}
	})
	return tab.Flush()
}

// jsonName makes a JSON key of words, "devices_suspended", and factName words of that again.
func jsonName(words string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(words), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }), "_")
}

func factName(key string) string { return strings.ReplaceAll(key, "_", " ") }

func (o output) writeJSON(v any) error {
	enc := json.NewEncoder(o.w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// note says something that is not the answer.
func (o output) note(format string, args ...any) { fmt.Fprintf(o.errs, format+"\n", args...) }

// warn says what may be unwanted in what was done.
func (o output) warn(warnings []string) {
	for _, w := range warnings {
		o.note("warning: %s", w)
	}
}

// warnOnce says each warning of many acts once.
type warnOnce struct {
	mu   sync.Mutex
	said map[string]bool
}

func (w *warnOnce) say(o output, warnings []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, text := range warnings {
		if !w.said[text] {
			if w.said == nil {
				w.said = map[string]bool{}
			}
			w.said[text] = true
			o.warn([]string{text})
		}
	}
}

// done is the answer of an act that has no other: with --json {"removed": "lamp-1"}, else nothing.
func (o output) done(did, what string) error {
	if !o.json {
		return nil
	}
	return o.writeJSON(map[string]string{did: what})
}

// tableRows is how many rows are aligned together. A list may be longer than
// memory, so columns are set anew after so many.
const tableRows = 1000

// list prints items as they come: a JSON array, or a table. On an error the
// array stays open, so that nobody takes a part for the whole.
func list[T any](o output, items iter.Seq2[T, error], columns []string, row func(T) []string) error {
	if o.json {
		return listJSON(o.w, items)
	}
	tab := tabwriter.NewWriter(o.w, 0, 8, 2, ' ', 0)
	n := 0
	for item, err := range items {
		if err != nil {
			tab.Flush()
			return err
		}
		if n == 0 {
			fmt.Fprintln(tab, strings.Join(columns, "\t"))
		}
		fmt.Fprintln(tab, strings.Join(row(item), "\t"))
		if n++; n%tableRows == 0 {
			if err := tab.Flush(); err != nil {
				return err
			}
		}
	}
	if n == 0 {
		o.note("none")
	}
	return tab.Flush()
}

func listJSON[T any](w io.Writer, items iter.Seq2[T, error]) error {
	lead := "[\n  "
	for item, err := range items {
		if err != nil {
			return err
		}
		raw, err := json.Marshal(item)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%s", lead, raw); err != nil {
			return err
		}
		lead = ",\n  "
	}
	end := "\n]\n"
	if strings.HasPrefix(lead, "[") {
		end = "[]\n"
	}
	_, err := io.WriteString(w, end)
	return err
}

// all makes a sequence of a slice.
func all[T any](items []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}

// when writes a time with how far away it is: "2030-01-31T12:00:00Z (in 12h)".
func (o output) when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s)", instant(t), relative(t.Sub(o.now)))
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// relative writes a distance in its largest whole unit, rounded to the nearest.
func relative(d time.Duration) string {
	s := span(d.Abs())
	if d < 0 {
		return s + " ago"
	}
	return "in " + s
}

func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d.Round(time.Hour) >= 2*day:
		return fmt.Sprintf("%dd", d.Round(day)/day)
	case d.Round(time.Minute) >= 2*time.Hour:
		return fmt.Sprintf("%dh", d.Round(time.Hour)/time.Hour)
	case d.Round(time.Second) >= 2*time.Minute:
		return fmt.Sprintf("%dm", d.Round(time.Minute)/time.Minute)
	}
	return fmt.Sprintf("%ds", d.Round(time.Second)/time.Second)
}
