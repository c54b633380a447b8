package main

import (
	"fmt"
	"time"

	"github.com/deviceca/deviceca/policy"
	"github.com/spf13/cobra"
)

// durationValue is a flag that takes what a policy file does: "90m", "24h", "30d", "2w".
type durationValue time.Duration

// durationFlag adds such a flag. Every flag of a duration is one.
func durationFlag(cmd *cobra.Command, v *time.Duration, name string, def time.Duration, usage string) {
	*v = def
	cmd.Flags().Var((*durationValue)(v), name, usage+", as in 90m, 24h, 30d or 2w")
}

func (v *durationValue) Set(text string) error {
	d, err := policy.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration: give a number and a unit, as in 90m, 24h, 30d or 2w", text)
	}
	*v = durationValue(d)
	return nil
}

func (v *durationValue) String() string {
	if *v == 0 {
		return "" // no default to show
	}
	return policy.FormatDuration(time.Duration(*v))
}

func (*durationValue) Type() string { return "duration" }
