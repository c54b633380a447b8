package stacktest

import (
	"net"
	"strings"
	"testing"
)

// TestAddressTaken: a server that cannot have its addresses says which, and leaves nothing in the ledger, however often it is started.
func TestAddressTaken(t *testing.T) {
	t.Parallel()
	h := initHome(t, shortDir(t))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	before := h.run("audit", "list", "--home", h.dir, "--json")
	for _, name := range []string{"https", "http", "metrics"} {
		args := []string{"serve", "--home", h.dir, "--https", h.https, "--http", h.http, "--metrics", "off"}
		errs := h.fails(append(args, "--"+name, taken.Addr().String())...)
		if !strings.Contains(errs, "listen."+name) || !strings.Contains(errs, "address already in use") || !strings.Contains(errs, "ss -ltnp") {
			t.Errorf("%s:\n%s", name, errs)
		}
		if strings.Contains(errs, "level=ERROR") || strings.Contains(errs, "issued") {
			t.Errorf("%s: it did more than fail:\n%s", name, errs)
		}
	}
	if after := h.run("audit", "list", "--home", h.dir, "--json"); after != before {
		t.Errorf("events before:\n%s\nand after:\n%s", before, after)
	}
	if certs := h.run("cert", "list", "--home", h.dir); certs != "" && strings.Contains(certs, "server") {
		t.Errorf("certificates of servers that never served:\n%s", certs)
	}
	h.start()
}

// TestStartFaults: what is wrong with the configuration is found before anything is issued.
func TestStartFaults(t *testing.T) {
	t.Parallel()
	h := initHome(t, shortDir(t))
	before := h.run("audit", "list", "--home", h.dir, "--json")
	h.env = []string{"DEVICECA_WEBHOOK_URL=https://127.0.0.1:1/", "DEVICECA_WEBHOOK_SECRET=file:secrets/none"}
	if errs := h.fails("serve", "--home", h.dir, "--https", h.https, "--http", h.http, "--metrics", "off"); !strings.Contains(errs, "secrets/none") || strings.Contains(errs, "level=ERROR") {
		t.Errorf("serve says:\n%s", errs)
	}
	h.env = nil
	if after := h.run("audit", "list", "--home", h.dir, "--json"); after != before {
		t.Errorf("events before:\n%s\nand after:\n%s", before, after)
	}
}
