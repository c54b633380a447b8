package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	check := withJSON(&cobra.Command{
		Use: "check", Short: "Say everything that is wrong with the configuration", Args: takes(),
		Long:    "Read deviceca.yaml of the home, and the environment over it, and report every fault.",
		Example: `  deviceca config check --home ./deviceca-data`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := a.output(cmd)
			_, err := LoadConfig(a.home(cmd), a.getenv)
			faults, ok := errors.AsType[ConfigFaults](err)
			switch {
			case err != nil && !ok:
				return err
			case o.json:
				if faults == nil {
					faults = ConfigFaults{}
				}
				if err := o.writeJSON(map[string]ConfigFaults{"faults": faults}); err != nil {
					return err
				}
			case ok:
				o.note("%s", faults)
			default:
				_, err := fmt.Fprintln(o.w, "ok")
				return err
			}
			if ok {
				return errReported
			}
			return nil
		},
	})
	show := withJSON(&cobra.Command{
		Use: "show", Short: "Print every key with its value, the environment's included", Args: takes(),
		Example: `  deviceca config show
  DEVICECA_LISTEN_HTTPS=:8443 deviceca config show --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := LoadConfig(a.home(cmd), a.getenv)
			if err != nil {
				return err
			}
			o := a.output(cmd)
			values := map[string]any{}
			for _, k := range c.keys() {
				values[k.path] = k.shown()
			}
			return o.print(values, func(fact func(name, value string)) {
				for _, k := range c.keys() {
					if s := fmt.Sprint(k.shown()); s != "" && s != "[]" {
						fact(k.path, s)
					} else {
						fact(k.path, "-")
					}
				}
			})
		},
	})
	keys := withJSON(&cobra.Command{
		Use: "keys", Short: "Print what each key means, as a Markdown table", Args: takes(),
		Example: `  deviceca config keys`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := a.output(cmd)
			if o.json {
				return o.configKeys()
			}
			_, err := io.WriteString(o.w, configMarkdown())
			return err
		},
	})
	cmd := group("config", "The configuration of the home", check, show, keys, a.configWrite())
	cmd.PersistentFlags().String("home", "", "home directory of the CA (default $DEVICECA_HOME or "+defaultHome+")")
	return cmd
}
