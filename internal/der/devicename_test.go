package der

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestDeviceName(t *testing.T) {
	const (
		permanent = "06082b06010505070803" // id-on-permanentIdentifier
		hardware  = "06082b06010505070804" // id-on-hardwareModuleName
	)
	nameless := []string{"no identifierValue", "nothing at all", "empty identifier", "slash", "control character", "not UTF-8"}
	for _, c := range []struct{ name, in, form, value, err string }{
		{"identifier", permanent + "a006" + "3004" + "0c026131", "permanent-identifier", "a1", ""},
		{"identifier and assigner", permanent + "a00b" + "3009" + "0c026131" + "06032a0304", "permanent-identifier", "a1/1.2.3.4", ""},
		{"hardware", hardware + "a00b" + "3009" + "06032a0304" + "04026131", "hardware-module", "a1/1.2.3.4", ""},
		{"another type", "06032a0304" + "a002" + "0500", "other", "otherName 1.2.3.4", ""},
		{"no identifierValue", permanent + "a007" + "3005" + "06032a0304", "", "", "names no device: a permanent-identifier without value"},
		{"nothing at all", permanent + "a002" + "3000", "", "", "names no device: a permanent-identifier without value"},
		{"empty identifier", permanent + "a004" + "3002" + "0c00", "", "", "names no device: a permanent-identifier without value"},
		{"slash", permanent + "a005" + "3003" + "0c012f", "", "", "names no device: a permanent-identifier with a slash"},
		{"control character", permanent + "a005" + "3003" + "0c010a", "", "", "that is not plain UTF-8"},
		{"not UTF-8", hardware + "a00a" + "3008" + "06032a0304" + "0401ff", "", "", "that is not plain UTF-8"},
		{"hardware without type", hardware + "a006" + "3004" + "04026131", "", "", "HardwareModuleName"},
		{"more after it", permanent + "a006" + "3004" + "0c026131" + "0500", "", "", "not an otherName"},
		{"more within", permanent + "a008" + "3004" + "0c026131" + "0500", "", "", "not a SEQUENCE"},
		{"no value", permanent, "", "", "not an otherName"},
		{"nothing", "", "", "", "not an otherName"},
	} {
		in, err := hex.DecodeString(c.in)
		if err != nil {
			t.Fatal(c.name, err)
		}
		form, value, err := DeviceName(in)
		if form != c.form || value != c.value || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %q %q %v", c.name, form, value, err)
		}
		if got := errors.Is(err, ErrNoDeviceName); got != slices.Contains(nameless, c.name) {
			t.Errorf("%s: %v is ErrNoDeviceName: %t", c.name, err, got)
		}
	}
}
