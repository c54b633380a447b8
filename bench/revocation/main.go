// Command revocation measures what the publications of revocation cost: OCSP
// answers over HTTP beside nginx serving a file of the same size, openssl's and
// cfssl's responders; CRLs; one revocation by how many there are already; packs.
// It prints tables in Markdown.
//
//	go run ./bench/revocation -certs 1000000 -revoked 1000000
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

func main() {
	var b bench
	serve := flag.String("serve", "", "be the responder at this address (used by the bench itself)")
	only := flag.String("only", "", "one part: ocsp, crl, change or pack")
	flag.IntVar(&b.certs, "certs", 20_000, "certificates that the OCSP responders answer for")
	flag.IntVar(&b.revoked, "revoked", 100_000, "most revoked certificates of the CRL and of the curve")
	flag.IntVar(&b.universe, "universe", 1_000_000, "certificates of the pack, 1 % revoked")
	flag.DurationVar(&b.span, "span", 3*time.Second, "length of each measurement under load")
	flag.IntVar(&b.rounds, "rounds", 3, "rounds, in which the servers take turns; the median counts")
	flag.IntVar(&b.conns, "conns", 16, "connections")
	flag.StringVar(&b.cfssl, "cfssl", "", "program cfssl, to be compared (cd bench/revocation/cfssl && go build -o /tmp/cfssl github.com/cloudflare/cfssl/cmd/cfssl)")
	flag.Parse()
	var err error
	if b.dir, err = os.MkdirTemp("", "revocation"); err == nil {
		defer os.RemoveAll(b.dir)
		err = b.run(*serve, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "revocation:", err)
		os.RemoveAll(b.dir)
		os.Exit(1)
	}
}

// bench is what is measured, and how.
type bench struct {
	certs, revoked, universe int
	span                     time.Duration
	rounds, conns            int
	cfssl                    string
	dir                      string
}

func (b *bench) run(serve, only string) error {
	if serve != "" {
		return b.serve(serve)
	}
	fmt.Printf("%s, %d processors, %s\n\n", runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	for _, part := range []struct {
		name string
		run  func() error
	}{{"ocsp", b.ocsp}, {"crl", b.crl}, {"change", b.change}, {"pack", b.pack}} {
		if only != "" && only != part.name {
			continue
		}
		if err := part.run(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		fmt.Println()
	}
	return nil
}

// row prints one line of a table.
func row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = fmt.Sprint(c)
		if f, ok := c.(float64); ok {
			text[i] = fmt.Sprintf("%.3g", f)
		}
	}
	fmt.Println("| " + strings.Join(text, " | ") + " |")
}

func head(cells ...any) {
	row(cells...)
	fmt.Println(strings.Repeat("|---", len(cells)) + "|")
}
