package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/internal/admin"
)

// TestReadDevices: each form of file gives the same lines, with their numbers;
// what cannot be read is named by its line.
func TestReadDevices(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"CSV", "id,level\na,x\nb,y\n", "2:a/x//  3:b/y//"},
		{"CSV in another order, with BOM and space", "\xef\xbb\xbf\n Level, ID ,state,group\nx, a ,claimed,g\n", "3:a/x/g/claimed"},
		{"CSV with a short row", "id,level\na\nb,y\n", "bad 2  3:b/y//"},
		{"CSV with a stray quote", "id,level\na,\"x\nb,y\n", "error line 2"},
		{"CSV without header", "lamp-1,software\n", "error the first line"},
		{"CSV without level", "id\na\n", "error the first line"},
		{"CSV with a column twice", "id,level,id\n", "error column"},
		{"NDJSON", "{\"id\":\"a\",\"level\":\"x\"}\n\n{\"id\":\"b\",\"level\":\"y\"}", "1:a/x//  3:b/y//"},
		{"NDJSON with bad lines", "{\"id\":\"a\"}\n{\"id\":\"b\",\"colour\":1}\nnonsense\n{\"id\":\"c\"} {}\n{\"id\":\"d\"}", "1:a///  bad 2  bad 3  bad 4  5:d///"},
		{"NDJSON with a line without end", "{\"id\":\"" + strings.Repeat("x", admin.MaxLine) + "\"}", "error line 1"},
		{"array", "\n[\n {\"id\":\"a\",\n  \"level\":\"x\"},\n {\"id\":\"b\"}\n]\n", "3:a/x//  5:b///"},
		{"empty array", "[]", ""},
		{"array with a bad object", "[{\"colour\":1},\n{\"id\":\"b\"}]", "bad 1  2:b///"},
		{"array of text", "[\"a\"]", "bad 1"},
		{"array without end", "[{\"id\":\"a\"}", "1:a///  error line 1"},
		{"array with more after", "[{\"id\":\"a\"}]\n{}", "1:a///  error line 2"},
		{"nothing", " \n", "error the file is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			bad := func(f admin.ImportFailure) { got = append(got, fmt.Sprintf("bad %d", f.Line)) }
			for l, err := range readDevices(strings.NewReader(tt.file), bad) {
				if err != nil {
					got = append(got, "error "+err.Error())
					break
				}
				got = append(got, fmt.Sprintf("%d:%s/%s/%s/%s", l.Line, l.ID, l.Level, l.Group, l.State))
			}
			joined := strings.Join(got, "  ")
			if joined != tt.want && !(strings.Contains(tt.want, "error") && strings.HasPrefix(joined, tt.want)) {
				t.Errorf("got  %s\nwant %s", joined, tt.want)
			}
		})
	}
}

func TestParseEvidence(t *testing.T) {
	e, err := parseEvidence("tpm:ek_chain=true,quote_age=30,maker=ACME")
	if err != nil || e.Kind != "tpm" || e.Facts["ek_chain"] != true || e.Facts["quote_age"] != 30.0 || e.Facts["maker"] != "ACME" {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, bad := range []string{"", ":a=b", "a=b", "tpm:a", "tpm:=b"} {
		if _, err := parseEvidence(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
