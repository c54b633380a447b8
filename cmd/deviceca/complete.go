package main

import (
	"context"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a completion script for a shell",
		Example: `  source <(deviceca completion bash)
  deviceca completion zsh > "${fpath[1]}/_deviceca"
  deviceca completion fish > ~/.config/fish/completions/deviceca.fish`,
		Args:      takes("bash, zsh or fish"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return usagef("no completion for %q: there is bash, zsh and fish", args[0])
		},
	}
}

const (
	completionPatience = time.Second
	completionLimit    = 100
)

// ask runs do with a client for completion: of a running server only, since
// pressing a key should not open a token.
func (a *app) ask(cmd *cobra.Command, do func(ctx context.Context, c *admin.Client) []string) ([]string, cobra.ShellCompDirective) {
	quiet := *a
	quiet.open = nil
	c, done, err := quiet.openClient(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	return do(ctx, c), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeDevices(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.ask(cmd, func(ctx context.Context, c *admin.Client) (ids []string) {
		for d, err := range c.Devices(ctx, device.Filter{Prefix: begun}, "", completionLimit) {
			if err != nil {
				break
			}
			ids = append(ids, d.ID)
		}
		return ids
	})
}

func (a *app) completeLevels(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.ask(cmd, func(ctx context.Context, c *admin.Client) []string {
		p, err := c.Policy(ctx)
		if err != nil {
			return nil
		}
		return p.Levels
	})
}

func (a *app) completeProfiles(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.ask(cmd, func(ctx context.Context, c *admin.Client) []string {
		p, err := c.Policy(ctx)
		if err != nil {
			return nil
		}
		return p.Profiles
	})
}

func completeStates(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{string(device.Manufactured), string(device.Claimed), string(device.Active), string(device.Suspended), string(device.Retired)}, cobra.ShellCompDirectiveNoFileComp
}

func completeReasons(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return ca.Reasons(), cobra.ShellCompDirectiveNoFileComp
}
