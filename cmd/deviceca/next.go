package main

import (
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/deviceca/deviceca/ca"
	"github.com/spf13/cobra"
)

// nextSteps says how a device uses a new credential: with our own client, with
// curl, with strongSwan. It goes to stderr, since the grant alone is the answer.
func (a *app) nextSteps(cmd *cobra.Command, o output, g *ca.Grant) {
	id := g.ID
	if id == "" {
		id = "DEVICE-ID"
	}
	server, roots := a.server(cmd), a.setting(cmd, "roots", "DEVICECA_ROOTS")
	if server == "" {
		server = a.homeURL(a.home(cmd))
	}
	if roots == "" {
		roots = filepath.Join(a.home(cmd), "root.crt")
	}
	o.note(`
The secret is not shown again. The device enrols with it by one of these (our own client also with --protocol acme or cmp):

  DEVICECA_SECRET=%[4]s %[7]s enroll --protocol est \
    --server %[1]s --roots %[2]s --id %[5]s --reference %[3]s --dir %[5]s

  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %[5]s.key -subj /CN=%[5]s -outform DER -out %[5]s.csr
  base64 %[5]s.csr | curl --cacert %[2]s -u %[3]s:%[4]s -H 'Content-Type: application/pkcs10' \
    --data-binary @- %[1]s/.well-known/est/simpleenroll | base64 -d | openssl pkcs7 -inform DER -print_certs -out %[5]s.crt

  echo 'libtls { version_max = 1.3 }' > strongswan.conf
  STRONGSWAN_CONF=strongswan.conf pki --est --url %[1]s --in %[5]s.csr --cacert %[2]s --cacert %[6]s --userpass %[3]s:%[4]s --outform pem > %[5]s.crt`,
		server, roots, g.Reference, g.Secret, id, filepath.Join(filepath.Dir(roots), "issuing.crt"), program())
}

// program is how this program was called, so that what it says to type can be typed.
func program() string {
	if filepath.Base(os.Args[0]) == "deviceca" {
		return os.Args[0]
	}
	return "deviceca"
}

// homeURL is where the server of a home listens, as its configuration says.
func (a *app) homeURL(home string) string {
	conf, err := LoadConfig(home, a.getenv)
	if err != nil {
		conf = DefaultConfig() // the grant matters more than the hint
	}
	host, port, err := net.SplitHostPort(conf.Listen.HTTPS)
	if err != nil {
		return "https://" + conf.Listen.HTTPS
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
		if len(conf.TLS.Names) > 0 {
			host = conf.TLS.Names[0]
		}
	}
	return (&url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}).String()
}
