package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands are all that do something, by their path.
func commands() map[string]*cobra.Command {
	all := map[string]*cobra.Command{}
	a := &app{house: parts(), now: time.Now, getenv: os.Getenv}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if !cmd.HasSubCommands() {
			all[cmd.CommandPath()] = cmd
		}
	}
	walk(a.root())
	return all
}

// Every command speaks JSON, but the one that serves and the one that prints scripts. Each has examples.
func TestEveryCommandHasJSON(t *testing.T) {
	without := map[string]bool{"deviceca serve": true, "deviceca completion": true}
	if n := len(commands()); n < 50 {
		t.Errorf("the tree has %d commands", n)
	}
	for path, cmd := range commands() {
		if has := cmd.Flags().Lookup("json") != nil; has == without[path] {
			t.Errorf("%s: --json is %v", path, has)
		}
		if cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%s has no example, or no short text", path)
		}
	}
}

// Every flag that is a duration takes days and weeks.
func TestEveryDurationTakesDays(t *testing.T) {
	found := 0
	for path, cmd := range commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() != "duration" {
				return
			}
			found++
			if err := f.Value.Set("1w2d"); err != nil || f.Value.String() != "9d" {
				t.Errorf("%s --%s: %s, %v", path, f.Name, f.Value, err)
			}
			if err := f.Value.Set("1 week"); err == nil || !strings.Contains(err.Error(), "30d") && !strings.Contains(err.Error(), "twice") {
				t.Errorf("%s --%s takes 1 week: %v", path, f.Name, err)
			}
		})
	}
	if found < 5 {
		t.Errorf("%d flags", found)
	}
}

// What is listed by time can be listed newest first, and since a time.
func TestListsByTime(t *testing.T) {
	for _, path := range []string{"account", "audit", "cert", "credential", "device", "request"} {
		cmd := commands()["deviceca "+path+" list"]
		if cmd == nil || cmd.Flags().Lookup("newest") == nil || cmd.Flags().Lookup("since") == nil {
			t.Errorf("%s list has no --newest and --since", path)
		}
	}
	now := time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2030-01-30T00:00:00Z": now.Add(-36 * time.Hour), "2030-01-30": now.Add(-36 * time.Hour), "2d": now.Add(-48 * time.Hour), "90m": now.Add(-90 * time.Minute),
	} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"yesterday", "-1h", "0", "2030-13-01"} {
		if got, err := parseSince(text, now); err == nil {
			t.Errorf("%s: %s", text, got)
		}
	}
}

// JSON has snake_case keys, and no number that stands for a duration.
func TestJSONKeys(t *testing.T) {
	good := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			walk(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] || !strings.HasPrefix(typ.PkgPath(), "github.com/deviceca") {
			return
		}
		seen[typ] = true
		_, ownJSON := typ.MethodByName("MarshalJSON")
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case name == "-" || !f.IsExported():
				continue
			case name == "" && !f.Anonymous:
				t.Errorf("%s.%s has no JSON name", typ, f.Name)
			case name != "" && !good.MatchString(name):
				t.Errorf("%s.%s is %q in JSON", typ, f.Name, name)
			case f.Type == reflect.TypeFor[time.Duration]() && !ownJSON:
				t.Errorf("%s.%s is a number of nanoseconds in JSON", typ, f.Name)
			}
			walk(f.Type)
		}
	}
	for _, v := range []any{
		admin.Status{}, admin.DeviceDetail{}, admin.ChangedDevice{}, admin.Moved{}, admin.CertificateDetail{}, admin.Explanation{}, admin.PolicyView{}, admin.PolicyVersionView{},
		admin.Manufacturer{}, admin.RA{}, admin.Admin{}, admin.AuditEvent{}, admin.AuditReport{}, admin.BackupReport{}, admin.RecoveryReport{}, admin.ImportReport{}, admin.Chain{}, admin.CARequest{},
		ca.Grant{}, ca.PendingRequest{}, ca.Account{}, device.Credential{}, client.Result{}, bulkCounts{}, grantCounts{}, RootCRL{},
	} {
		walk(reflect.TypeOf(v))
	}
	for words, want := range map[string]string{"devices suspended": "devices_suspended", "revoked CAs": "revoked_cas", "made since, not in the ledger": "made_since_not_in_the_ledger"} {
		if got := jsonName(words); got != want || !good.MatchString(got) {
			t.Errorf("%q: %q", words, got)
		}
	}
}
