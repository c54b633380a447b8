package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// sample is one round of one load. What a server does not tell is 0.
type sample struct {
	Certificates  int     `json:"certificates"`
	Seconds       float64 `json:"seconds"`
	CPUSeconds    float64 `json:"cpu_seconds"` // of the server, user and system
	PerSecond     float64 `json:"per_second"`
	PerCPUSecond  float64 `json:"per_cpu_second"`
	P50           float64 `json:"p50_ms"`
	P99           float64 `json:"p99_ms"`
	Signatures    float64 `json:"signatures_per_certificate,omitempty"`
	Commits       float64 `json:"commits_per_certificate,omitempty"`
	ChangesCommit float64 `json:"changes_per_commit,omitempty"`
	Allocations   float64 `json:"allocations_per_certificate,omitempty"`
	Bytes         float64 `json:"allocated_bytes_per_certificate,omitempty"`
	RoundTrips    float64 `json:"round_trips_per_certificate,omitempty"`
	Short         bool    `json:"requests_used_up,omitempty"` // before the time was over
}

// signing is one comparison of the bare module with internal/keys.
type signing struct {
	Goroutines       int     `json:"goroutines"`
	BarePerSecond    float64 `json:"bare_per_second"`
	BarePerCPUSecond float64 `json:"bare_per_cpu_second"`
	PoolPerSecond    float64 `json:"pool_per_second"`
	PoolPerCPUSecond float64 `json:"pool_per_cpu_second"`
	Ratio            float64 `json:"pool_to_bare"`     // of rates, median of turns
	CPURatio         float64 `json:"pool_to_bare_cpu"` // of rates per CPU-second, median of turns

	ratios, cpuRatios []float64
}

// report is all that a run found out.
type report struct {
	Date        time.Time `json:"date"`
	Go          string    `json:"go"`
	CPUs        int       `json:"cpus"`
	Model       string    `json:"cpu"`
	Connections int       `json:"connections"`
	Duration    string    `json:"duration"`
	Rounds      int       `json:"rounds"`
	// Verify is P-256 verifications per CPU-second, one value a round.
	Verify  []float64           `json:"verify_per_cpu_second"`
	Derive  []float64           `json:"derive_per_cpu_second,omitempty"` // keys by PBM with 500 iterations
	Loads   map[string][]sample `json:"loads"`
	Signing map[int][]signing   `json:"signing,omitempty"`
	names   []string            // of loads, in order
}

func newReport(o options) *report {
	return &report{Date: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), CPUs: runtime.NumCPU(), Model: cpuModel(),
		Connections: o.connections, Duration: o.duration.String(), Rounds: o.rounds,
		Loads: map[string][]sample{}, Signing: map[int][]signing{}}
}

func (r *report) add(name string, s sample) {
	if r.Loads[name] == nil {
		r.names = append(r.names, name)
	}
	r.Loads[name] = append(r.Loads[name], s)
}

// of is the median over the rounds of one figure of a load.
func (r *report) of(load string, figure func(sample) float64) float64 {
	var all []float64
	for _, s := range r.Loads[load] {
		all = append(all, figure(s))
	}
	return median(all)
}

// ratio is the median of one load's figure over another's of the same round.
func (r *report) ratio(load, other string, figure func(sample) float64) float64 {
	var all []float64
	for i, s := range r.Loads[load] {
		if o := r.Loads[other]; i < len(o) && figure(o[i]) > 0 {
			all = append(all, figure(s)/figure(o[i]))
		}
	}
	return median(all)
}

func perSecond(s sample) float64    { return s.PerSecond }
func perCPUSecond(s sample) float64 { return s.PerCPUSecond }

// What an enrolment on a kept-alive connection costs at least, measured on a quiet
// machine: 241 µs, of which the token takes 53 and the rest goes with the speed of
// Go's cryptography, of which a P-256 verification (60 µs) is the measure.
const (
	leastCost   = 241e-6
	leastToken  = 53e-6
	verifyQuiet = 60e-6
)

// ceiling is that cost on this machine in this hour, as certificates per
// CPU-second; 0 if the token was not measured.
func (r *report) ceiling() float64 {
	if least := r.least(leastCost); least > 0 {
		return 1 / least
	}
	return 0
}

// least is what a cost on the quiet machine is here and now, in seconds, if one signature by the
// token is in it; 0 if the token was not measured.
func (r *report) least(quiet float64) float64 {
	sign, verify := r.token(), median(r.Verify)
	if sign == 0 || verify == 0 {
		return 0
	}
	return 1/sign + (quiet-leastToken)*(1/verify)/verifyQuiet
}

// token is the bare token's signatures per CPU-second; 0 if it was not measured.
func (r *report) token() float64 {
	var all []float64
	for _, s := range r.Signing[signingGoroutines[0]] {
		all = append(all, s.BarePerCPUSecond)
	}
	return median(all)
}

// tables are headed, each a header line and rows.
func (r *report) tables() []table {
	loads := table{title: "Enrolment", head: []string{"load", "cert/s", "cert/CPU-s", "p50 ms", "p99 ms", "signatures", "commits", "changes/commit", "allocations", "kB"}}
	number := func(format string, v float64) string {
		if v == 0 {
			return "–"
		}
		return fmt.Sprintf(format, v)
	}
	for _, name := range r.names {
		row := []string{name}
		for _, c := range []struct {
			format string
			figure func(sample) float64
		}{
			{"%.0f", perSecond}, {"%.0f", perCPUSecond},
			{"%.1f", func(s sample) float64 { return s.P50 }}, {"%.1f", func(s sample) float64 { return s.P99 }},
			{"%.2f", func(s sample) float64 { return s.Signatures }}, {"%.3f", func(s sample) float64 { return s.Commits }},
			{"%.1f", func(s sample) float64 { return s.ChangesCommit }}, {"%.0f", func(s sample) float64 { return s.Allocations }},
			{"%.1f", func(s sample) float64 { return s.Bytes / 1000 }},
		} {
			row = append(row, number(c.format, r.of(name, c.figure)))
		}
		loads.rows = append(loads.rows, row)
	}
	tables := []table{loads}
	if len(r.Signing) > 0 {
		t := table{title: "The token alone, P-256", head: []string{"goroutines", "bare /s", "bare /CPU-s", "keys /s", "keys /CPU-s", "keys ÷ bare", "per CPU-s"}}
		for _, n := range signingGoroutines {
			of := func(figure func(signing) float64) float64 {
				var all []float64
				for _, s := range r.Signing[n] {
					all = append(all, figure(s))
				}
				return median(all)
			}
			t.rows = append(t.rows, []string{fmt.Sprint(n),
				number("%.0f", of(func(s signing) float64 { return s.BarePerSecond })), number("%.0f", of(func(s signing) float64 { return s.BarePerCPUSecond })),
				number("%.0f", of(func(s signing) float64 { return s.PoolPerSecond })), number("%.0f", of(func(s signing) float64 { return s.PoolPerCPUSecond })),
				number("%.3f", of(func(s signing) float64 { return s.Ratio })), number("%.3f", of(func(s signing) float64 { return s.CPURatio }))})
		}
		tables = append(tables, t)
	}
	tables = append(tables, r.compared(number))
	if len(r.Derive) > 0 {
		tables = append(tables, r.comparedCMP(number))
	}
	if t := r.comparedACME(number); len(t.rows) > 0 {
		tables = append(tables, t)
	}
	return tables
}

// comparedCMP puts each CMP load beside its bound and the mock's load of the same kind.
func (r *report) comparedCMP(number func(string, float64) string) table {
	t := table{title: "CMP, per CPU-second", head: []string{"load", "transactions", "bound", "÷ bound", "÷ openssl mock"}}
	token, verify, derive := r.token(), median(r.Verify), median(r.Derive)
	for _, l := range cmpLoads {
		if l.mock {
			continue
		}
		rate, beside := r.of(l.name, perCPUSecond), 0.0
		row := []string{l.name, number("%.0f", rate), "–", "–"}
		if token > 0 {
			bound := 1 / l.least(token, verify, derive)
			row[2], row[3] = number("%.0f", bound), number("%.2f", rate/bound)
		}
		if peer, ok := l.peer(); ok {
			beside = r.ratio(l.name, peer.name, perCPUSecond)
		}
		t.rows = append(t.rows, append(row, number("%.2f", beside)))
	}
	return t
}

// compared are the ratios, which a noisy machine distorts least.
func (r *report) compared(number func(string, float64) string) table {
	t := table{title: "Compared", head: []string{"", "value"}}
	line := func(what, format string, v float64) {
		if v != 0 {
			t.rows = append(t.rows, []string{what, number(format, v)})
		}
	}
	line("P-256 verifications per CPU-second (16,600 on a quiet machine)", "%.0f", median(r.Verify))
	ceiling := r.ceiling()
	line("ceiling of a kept-alive enrolment here, per CPU-second (4,150 on a quiet machine)", "%.0f", ceiling)
	if ceiling > 0 {
		line(renewLoad+" ÷ ceiling, per CPU-second", "%.2f", r.of(renewLoad, perCPUSecond)/ceiling)
	}
	line(renewLoad+" ÷ "+peerLoad+", per CPU-second", "%.2f", r.ratio(renewLoad, peerLoad, perCPUSecond))
	line(renewLoad+" ÷ "+peerLoad+", per second", "%.2f", r.ratio(renewLoad, peerLoad, perSecond))
	return t
}

type table struct {
	title string
	head  []string
	rows  [][]string
}

// write prints the report as text for a terminal, or as Markdown.
func (r *report) write(w io.Writer, markdown bool) error {
	about := fmt.Sprintf("%s, %s, %d × %s, %d connections, %d rounds of %s, medians.",
		r.Date.Format(time.DateOnly), r.Go, r.CPUs, r.Model, r.Connections, r.Rounds, r.Duration)
	fmt.Fprintln(w, about)
	for _, t := range r.tables() {
		fmt.Fprintln(w)
		if markdown {
			fmt.Fprintf(w, "**%s**\n\n| %s |\n|%s\n", t.title, strings.Join(t.head, " | "), "---|"+strings.Repeat("---:|", len(t.head)-1))
			for _, row := range t.rows {
				fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
			}
			continue
		}
		fmt.Fprintln(w, t.title)
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, row := range append([][]string{t.head}, t.rows...) {
			fmt.Fprintln(tw, "  "+strings.Join(row, "\t"))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// save writes every sample as JSON.
func (r *report) save(file string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(raw, '\n'), 0o644)
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(info)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
