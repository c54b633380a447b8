package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	return a.target(withJSON(&cobra.Command{
		Use: "status", Short: "Say how the CA fares", Args: takes(),
		Long: `Say how the CA fares. The exit status is 1 while the token or the database does not answer.
Warnings do not change it: they say, for example, that lists were dated in the future since this server's clock was ahead.`,
		Example: `  deviceca status`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				s, err := c.Status(ctx)
				if err != nil {
					return err
				}
				o := a.output(cmd)
				err = o.print(s, func(fact func(name, value string)) {
					if s.Started != nil {
						fact("server", "since "+o.when(*s.Started))
					} else {
						fact("server", "not running")
					}
					fact("version", s.Version)
					fact("policy", s.Policy)
					for _, part := range slices.Sorted(maps.Keys(s.Health)) {
						fact(part, s.Health[part])
					}
					for _, w := range s.Warnings {
						fact("warning", w)
					}
					for _, what := range slices.Sorted(maps.Keys(s.Counts)) {
						fact(factName(what), fmt.Sprint(s.Counts[what]))
					}
					for _, c := range s.CAs {
						fact("ca "+c.Name, string(c.Stage)+", expires "+o.when(c.NotAfter))
						if c.Warning != "" {
							fact("warning", c.Name+": "+c.Warning)
						}
					}
				})
				if err == nil && s.Health["restore"] != "" {
					return hinted(errors.New("this CA is closed: it was restored from a backup"),
						"bring it up to date and open it with deviceca recover on its host; deviceca recover --help says how")
				}
				if err == nil && !s.Healthy() {
					return errors.New("a part that the CA depends on does not answer")
				}
				return err
			})
		},
	}))
}

// version is what the linker was told, if it was.
var version string

// programVersion is the version, or else what the build recorded.
func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}

func (a *app) versionCommand() *cobra.Command {
	return withJSON(&cobra.Command{
		Use: "version", Short: "Print the version", Example: `  deviceca version`, Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := a.output(cmd)
			if o.json {
				return o.writeJSON(map[string]string{"version": programVersion()})
			}
			_, err := fmt.Fprintln(o.w, "deviceca", programVersion())
			return err
		},
	})
}
