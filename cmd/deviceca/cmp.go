package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	cmpcodec "github.com/deviceca/deviceca/cmp"
	cmpserver "github.com/deviceca/deviceca/cmp/server"
)

// newCMP makes the CMP responder, which both listeners serve.
func (s *server) newCMP(ctx context.Context) (*cmpserver.Server, error) {
	return cmpserver.New(ctx, cmpserver.Options{Authority: s.service, Ledger: s.store, Lists: crlLists{s.system}, Logger: s.log,
		BodyTimeout: time.Duration(s.cfg.Limits.ReadTimeout), Observe: s.metrics.observe("cmp")})
}

func (a *app) cmpCommand() *cobra.Command {
	return group("cmp", "Look at messages of the Certificate Management Protocol", a.cmpShow())
}

// maxCMPFile is the largest message shown: one that holds CRLs may be long.
const maxCMPFile = 16 << 20

func (a *app) cmpShow() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "show FILE|-",
		Short: "Print a CMP message readably",
		Long: `Print everything that a PKIMessage in DER says: header, body, protection and
certificates, by name where there is one. Nothing is verified, and no server is asked.`,
		Example: `  deviceca cmp show request.der
  openssl cmp … -reqout request.der -rspout reply.der; deviceca cmp show - < reply.der`,
		Args: takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			raw, err := io.ReadAll(io.LimitReader(in, maxCMPFile+1))
			if err != nil {
				return err
			}
			m, err := cmpcodec.Limits{Size: maxCMPFile}.Parse(raw)
			if err != nil {
				return &hintError{fmt.Errorf("%s is no CMP message: %w", args[0], err), "give one PKIMessage in DER, as openssl cmp -reqout writes it"}
			}
			o := a.output(cmd)
			if !o.json {
				return m.Describe(o.w)
			}
			var text strings.Builder
			if err := m.Describe(&text); err != nil {
				return err
			}
			return o.writeJSON(map[string]string{"text": text.String()})
		},
	})
}
