//go:build interop

package interop

import (
	"path/filepath"
	"strings"
	"testing"
)

// pkiConfig is what openssl makes the certificates of a manufacturer and of a
// registration authority from.
const pkiConfig = `
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
[ra]
basicConstraints = CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth, 1.3.6.1.5.5.7.3.28
[idevid]
keyUsage = critical, digitalSignature
subjectAltName = critical, otherName:1.3.6.1.5.5.7.8.4;SEQUENCE:module
[module]
type = OID:1.3.6.1.4.1.4128.7
serial = FORMAT:ASCII,OCTETSTRING:A1000
`

// A device with a manufacturer's certificate (IEEE 802.1AR, with a critical
// hardwareModuleName), and a registration authority, made with openssl and
// enrolling with curl: once with TLS 1.3 and once with 1.2, as old devices do.
func TestOnboarding(t *testing.T) {
	for _, version := range []string{"1.3", "1.2"} {
		t.Run("TLS "+version, func(t *testing.T) {
			a, dir := newAuthority(t, "DEVICECA_TLS_MIN_VERSION="+version), t.TempDir()
			write(t, filepath.Join(dir, "pki.cnf"), pkiConfig)
			ssl := func(args string, more ...string) string {
				t.Helper()
				return run(t, dir, "openssl", append(strings.Fields(args), more...)...)
			}
			const newKey = " -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
			const config = " -config pki.cnf"
			ssl("req -x509"+newKey+config+" -extensions ca -days 30 -keyout acme.key -out acme.pem -subj", "/CN=Acme Root")
			ssl("req -new"+newKey+config+" -keyout factory.key -out factory.csr -subj", "/CN=Acme Factory")
			ssl("x509 -req -in factory.csr -CA acme.pem -CAkey acme.key -days 30 -extfile pki.cnf -extensions ca -out factory.pem")
			ssl("req -new"+newKey+config+" -keyout idevid.key -out idevid.csr -subj", "/O=Acme/OU=RT-100/serialNumber=A1000")
			ssl("x509 -req -in idevid.csr -CA factory.pem -CAkey factory.key -days 2900000 -extfile pki.cnf -extensions idevid -out idevid.pem")
			write(t, filepath.Join(dir, "chain.pem"), read(t, filepath.Join(dir, "idevid.pem"))+read(t, filepath.Join(dir, "factory.pem")))
			ssl("req -x509" + newKey + config + " -extensions ra -days 30 -keyout ra.key -out ra.pem -subj /CN=line-1")

			est := url(a.https, "/.well-known/est")
			ask := func(name, id, cert, path string) string {
				t.Helper()
				ssl("req -new" + newKey + " -outform DER -keyout " + name + ".key -out " + name + ".csr -subj /CN=" + id)
				ssl("base64 -in " + name + ".csr -out " + name + ".b64")
				return run(t, dir, "curl", "-sS", "--tls-max", version, "--cacert", a.root(), "-H", "Content-Type: application/pkcs10",
					"--cert", cert+".pem", "--key", strings.Replace(cert, "chain", "idevid", 1)+".key",
					"--data-binary", "@"+name+".b64", "-w", "\n%{http_code}", est+path)
			}
			enrol := func(name, id, cert, path string) {
				t.Helper()
				body, status, _ := strings.Cut(ask(name, id, cert, path), "\n\n")
				if status != "200" {
					t.Fatalf("status %s: %s", status, body)
				}
				write(t, filepath.Join(dir, name+".p7.b64"), body)
				ssl("base64 -d -A -in " + name + ".p7.b64 -out " + name + ".p7")
				ssl("pkcs7 -inform DER -print_certs -in " + name + ".p7 -out " + name + ".pem")
				ssl("verify -CAfile " + a.root() + " -untrusted " + filepath.Join(a.home, "issuing.crt") + " " + name + ".pem")
				mustContain(t, "the certificate", ssl("x509 -noout -subject -in "+name+".pem"), "CN = "+id)
			}
			mustContain(t, "a stranger", ask("early", "A1000", "chain", "/simpleenroll"), "401")
			a.deviceca("manufacturer", "add", "acme", "--home", a.home, "--anchor", filepath.Join(dir, "acme.pem"), "--level", "software",
				"--models", "1.3.6.1.4.1.4128.*", "--serials", "A1000..A1999")
			a.deviceca("ra", "add", "line-1", "--home", a.home, "--cert", filepath.Join(dir, "ra.pem"), "--names", "lamp-*", "--level", "software")

			enrol("first", "A1000", "chain", "/simpleenroll")
			enrol("again", "A1000", "chain", "/simplereenroll") // by the IDevID, whose names the new certificate does not have
			enrol("renewed", "A1000", "first", "/simplereenroll")
			enrol("lamp", "lamp-7", "ra", "/simpleenroll")
			mustContain(t, "another's name", ask("other", "A1001", "chain", "/simpleenroll"), "403")
			mustContain(t, "an RA beyond its names", ask("gw", "gw-7", "ra", "/simpleenroll"), "403", "may not act for device gw-7")

			a.deviceca("manufacturer", "withdraw", "acme", "--home", a.home)
			mustContain(t, "a withdrawn manufacturer", ask("late", "A1000", "chain", "/simpleenroll"), "401", "nor by a manufacturer")
			enrol("on", "A1000", "renewed", "/simplereenroll") // its own certificate goes on
			mustContain(t, "the audit log", a.deviceca("audit", "list", "--home", a.home),
				"manufacturer:acme", "ra:line-1", "manufacturer.added", "manufacturer.withdrawn", "ra.added")
			a.deviceca("audit", "verify", "--home", a.home)
		})
	}
}

// TLS sessions are resumed, across a restart as across servers: the ticket
// keys come from the data key.
func TestResumption(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	connect := func(args ...string) string {
		t.Helper()
		get := write(t, filepath.Join(dir, "get"), "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		script := "openssl s_client -connect " + a.https + " -CAfile " + a.root() + " -ign_eof " + strings.Join(args, " ") + " < " + get
		return run(t, dir, "sh", "-c", script)
	}
	mustContain(t, "the first connection", connect("-sess_out session.pem"), "New, TLSv1.3", "application/pkcs7-mime")
	mustContain(t, "the second", connect("-sess_in session.pem"), "Reused, TLSv1.3", "application/pkcs7-mime")
	a.stop()
	a.start()
	mustContain(t, "after a restart", connect("-sess_in session.pem"), "Reused, TLSv1.3", "application/pkcs7-mime")
}
