package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/webhook"
)

// configFile is the name of the configuration in the home directory.
const configFile = "deviceca.yaml"

// Config is what DIR/deviceca.yaml says. The tags are its documentation: the
// file that init writes, `deviceca config keys` and the docs are made from them.
// Every key can be given in the environment instead, which is stronger than the
// file: limits.header_timeout is DEVICECA_LIMITS_HEADER_TIMEOUT; lists are
// separated by commas.
type Config struct {
	Name      string         `yaml:"name" doc:"Organization that the CA certificates name. Read when they are made, by init."`
	URL       string         `yaml:"url" doc:"Public base of the pointers that certificates carry (OCSP, CRL, CA certificates), for example http://ca.example:8080. It must stay reachable for as long as certificates live. Empty: http:// and listen.http."`
	Listen    ListenConfig   `yaml:"listen"`
	TLS       TLSConfig      `yaml:"tls"`
	EST       ESTConfig      `yaml:"est"`
	Keys      KeysConfig     `yaml:"keys"`
	DB        string         `yaml:"db" doc:"Ledger: a file, relative to the home, or a postgres:// URL."`
	Policy    string         `yaml:"policy" doc:"Policy file, relative to the home."`
	LintShare float64        `yaml:"lint_share" doc:"Share of the certificates that are linted whole, to watch over the server itself: a finding is an error in the log and counts in deviceca_lint_findings_total, and refuses nothing. Every profile is linted when the policy is loaded, whatever this says." unit:"0 to 1"`
	Limits    LimitsConfig   `yaml:"limits"`
	OCSP      OCSPConfig     `yaml:"ocsp"`
	CRL       CRLConfig      `yaml:"crl"`
	Pack      PackConfig     `yaml:"pack"`
	ACME      ACMEConfig     `yaml:"acme"`
	Approval  ApprovalConfig `yaml:"approval"`
	Webhook   WebhookConfig  `yaml:"webhook"`
	Audit     AuditConfig    `yaml:"audit"`
	Log       LogConfig      `yaml:"log"`
}

// ListenConfig says where the server listens.
type ListenConfig struct {
	HTTPS       string `yaml:"https" doc:"Address of EST, ACME, CMP and the admin API, over TLS." unit:"HOST:PORT"`
	HTTPSNoCert string `yaml:"https_nocert" doc:"The same services, for devices whose certificates Go's TLS cannot read, or that send one wherever it is asked for: here no client certificate is, and credentials alone decide. Empty: none." unit:"HOST:PORT"`
	HTTP        string `yaml:"http" doc:"Address of OCSP, CRLs, CA certificates, CMP and the health checks, without TLS: all of them are signed." unit:"HOST:PORT"`
	Metrics     string `yaml:"metrics" doc:"Address of the Prometheus metrics, or off." unit:"HOST:PORT"`
}

// TLSConfig is about the https listener.
type TLSConfig struct {
	MinVersion        string   `yaml:"min_version" doc:"Least version of TLS: 1.3, or 1.2 for devices that know no better."`
	Names             []string `yaml:"names" doc:"Further names of the server for its certificate, beside localhost, 127.0.0.1 and the host name: DNS names and IP addresses."`
	NoClientCertNames []string `yaml:"no_client_cert_names" doc:"Further DNS names of the server, on listen.https: clients that call it by one of them (SNI) are asked for no client certificate, as at listen.https_nocert."`
}

// KeysConfig says where the CA's keys are.
type KeysConfig struct {
	Provider   string `yaml:"provider" doc:"Where keys live: softhsm (SoftHSM2, with its tokens in the home), pkcs11 (the tokens that root and issuing name), or file, for development."`
	Root       string `yaml:"root" doc:"URI of the root's token (RFC 7512), with its module-path. The server never opens it. Empty: the token deviceca-root of softhsm, or the directory keys/root of file."`
	Issuing    string `yaml:"issuing" doc:"URI of the issuing CAs' token, likewise. Empty: the token deviceca-issuing of softhsm, or the directory keys/issuing of file."`
	PINRoot    string `yaml:"pin_root" doc:"Where the PIN of the root's token is: file:PATH (relative to the home), env:NAME, or credential:NAME of systemd. Never the PIN."`
	PINIssuing string `yaml:"pin_issuing" doc:"Where the PIN of the issuing CAs' token is, likewise."`
	Sessions   int    `yaml:"sessions" doc:"Signatures that the token makes in parallel, at most." unit:"1 to 256"`
	AllowFile  bool   `yaml:"allow_file" doc:"Permits the provider file, which keeps the CA's keys in encrypted files instead of a token."`
}

// LimitsConfig bounds what clients may cost. Bodies are bounded by each protocol.
type LimitsConfig struct {
	HeaderBytes               int           `yaml:"header_bytes" doc:"Largest request header." unit:"octets"`
	HeaderTimeout             time.Duration `yaml:"header_timeout" doc:"Time for a request's header to arrive."`
	ReadTimeout               time.Duration `yaml:"read_timeout" doc:"Time for a request's body to arrive."`
	WriteTimeout              time.Duration `yaml:"write_timeout" doc:"Time for a request to be answered, from its header on."`
	IdleTimeout               time.Duration `yaml:"idle_timeout" doc:"Time that a connection is kept without a request."`
	Connections               int           `yaml:"connections" doc:"Connections open at once, per listener. Beyond it, the address with most of them loses one."`
	ConnectionsPerAddress     int           `yaml:"connections_per_address" doc:"Connections open at once from one address (an IPv6 address counts as its /64), per listener. Addresses in est.proxies are exempt. Raise it where many devices share an address, behind NAT or a load balancer."`
	WrongSecretsPerAddress    int           `yaml:"wrong_secrets_per_address" doc:"Wrong secrets from one address before it has to wait; right ones are not counted." unit:"per minute"`
	WrongSecretsPerCredential int           `yaml:"wrong_secrets_per_reference" doc:"Wrong secrets for one credential before it has to wait." unit:"per minute"`
	CertificatesPerDevice     int           `yaml:"certificates_per_device" doc:"Certificates of one validity that a device gets in a burst; as many come back in each validity (60: of those that live 90 days, one each 36 hours). Beyond, only the certificate that it has is given again, for the same key and names. 0: no limit."`
	ActsPerDevice             int           `yaml:"acts_per_device" doc:"What else may be recorded for one device: revocations and their end, requests that wait, CMP transactions without a certificate. 0: no limit." unit:"per minute"`
	ActsPerCredential         int           `yaml:"acts_per_credential" doc:"Certificates and what else is recorded for one credential, the ACME accounts bound to it included. 0: no limit." unit:"per minute"`
	ActsPerAccount            int           `yaml:"acts_per_account" doc:"The same for one ACME account. 0: no limit." unit:"per minute"`
	ActsPerRegistrar          int           `yaml:"acts_per_registrar" doc:"The same for one registration authority or manufacturer. 0: no limit." unit:"per minute"`
	RefusalsPerAddress        int           `yaml:"refusals_per_address" doc:"Refusals to one address before its requests take turns, one at a time, and go after those of others. Addresses in est.proxies are exempt. 0: no limit." unit:"per minute"`
	ActsPerAddress            int           `yaml:"acts_per_address" doc:"The same for one address, or IPv6 /64; all that comes through a proxy or NAT has its address. 0: no limit." unit:"per minute"`
}

// budgets are the limits of what clients may have recorded.
func (l *LimitsConfig) budgets() ca.Budgets {
	return ca.Budgets{CertificatesPerDevice: l.CertificatesPerDevice, ActsPerDevice: l.ActsPerDevice, ActsPerCredential: l.ActsPerCredential,
		ActsPerAccount: l.ActsPerAccount, ActsPerRegistrar: l.ActsPerRegistrar, ActsPerAddress: l.ActsPerAddress, RefusalsPerAddress: l.RefusalsPerAddress}
}

// OCSPConfig is about the OCSP responder.
type OCSPConfig struct {
	Life        time.Duration `yaml:"life" doc:"Validity of an answer. Answers are signed again before half of it is over, so that an outage of less than half a life is not seen."`
	MaxAge      time.Duration `yaml:"max_age" doc:"How long HTTP caches may keep an answer: so long may one hide a revocation from who asks with GET."`
	Retention   time.Duration `yaml:"retention" doc:"How long the status of a certificate is told after its end."`
	DelegateKey string        `yaml:"delegate_key" doc:"Where the keys that sign answers are: memory (a new one at each start, under a certificate of 30 days), or token, where each answer costs the token a signature."`
	LiveRate    int           `yaml:"live_rate" doc:"Answers signed for one asker, which has sent a nonce, asked for several certificates at once, or for one that was never issued." unit:"per second"`
	Answers     int           `yaml:"answers" doc:"Signed answers kept in memory, about 0.55 kB each."`
	Shared      bool          `yaml:"shared" doc:"Keeps signed answers in the ledger too: other servers on it, and this one after a restart, need not sign them again. Worth it with delegate_key: token."`
}

// CRLConfig is about certificate revocation lists.
type CRLConfig struct {
	FullEvery    time.Duration `yaml:"full_every" doc:"How often complete lists are made."`
	FullWithin   time.Duration `yaml:"full_within" doc:"How long a complete list may lack a revocation; above 50000 entries, as many times longer as it has 50000. 0: until full_every."`
	Overlap      time.Duration `yaml:"overlap" doc:"How long a complete list lasts beyond the next: so long may the token be away without anyone finding an expired list."`
	DeltaEvery   time.Duration `yaml:"delta_every" doc:"How often deltas are made when nothing is revoked. A revocation is in the delta within a second."`
	DeltaOverlap time.Duration `yaml:"delta_overlap" doc:"How long a delta lasts beyond the next one due."`
	MaxAge       time.Duration `yaml:"max_age" doc:"How long HTTP caches may keep a complete list, and hide a revocation; a delta they may keep for a minute."`
}

// PackConfig is about the revocation packs for offline relying parties.
type PackConfig struct {
	Every   time.Duration `yaml:"every" doc:"How often full packs are made."`
	Refresh time.Duration `yaml:"refresh" doc:"How often there is a new state, and with it a delta, when nothing is revoked: certificates newer than the state are unknown to it."`
	Overlap time.Duration `yaml:"overlap" doc:"How long a state lasts beyond the next full pack: how stale relying parties may be."`
	Keep    int           `yaml:"keep" doc:"Full packs that can still be followed by a delta."`
}

// AuditConfig is about the audit log.
type AuditConfig struct {
	CheckpointEvery time.Duration `yaml:"checkpoint_every" doc:"How often the head of the audit log is signed, if it moved."`
	HeadsFile       string        `yaml:"heads_file" doc:"File that each signed head is appended to, relative to the home, about 300 octets a line. It shows that the log was cut off only where whoever cuts it cannot write: put it on another machine, or ship its lines there. It is never rotated. off: none."`
}

// LogConfig is about the server's own log, on standard error.
type LogConfig struct {
	Level  string `yaml:"level" doc:"Least level: debug, info, warn or error."`
	Format string `yaml:"format" doc:"text or json."`
	// Refusals keeps a client that does not give up from filling the log.
	Refusals int `yaml:"refusals" doc:"Lines about refused requests of one address, or IPv6 /64; how many more there were is on the next line that is written. 0: no limit." unit:"per minute"`
}

// DefaultConfig is the configuration of a home that says nothing.
func DefaultConfig() Config {
	return Config{
		Name:   "deviceca",
		Listen: ListenConfig{HTTPS: "127.0.0.1:8443", HTTP: "127.0.0.1:8080", Metrics: "127.0.0.1:9464"},
		TLS:    TLSConfig{MinVersion: "1.3"},
		Keys: KeysConfig{
			Provider: "softhsm", PINRoot: "file:secrets/root.pin", PINIssuing: "file:secrets/issuing.pin", Sessions: 8,
		},
		DB:        "ledger.db",
		Policy:    "policy.yaml",
		LintShare: 0.01,
		Limits: LimitsConfig{
			HeaderBytes: 16 << 10, HeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
			Connections: 10_000, ConnectionsPerAddress: 256, WrongSecretsPerAddress: 30, WrongSecretsPerCredential: 10,
			CertificatesPerDevice: 60, ActsPerDevice: 60, ActsPerCredential: 6000, ActsPerAccount: 600, ActsPerRegistrar: 60_000, ActsPerAddress: 60_000, RefusalsPerAddress: 120,
		},
		OCSP: OCSPConfig{Life: 12 * time.Hour, MaxAge: 5 * time.Minute, DelegateKey: "memory", LiveRate: 2000, Answers: 1 << 18},
		CRL:  CRLConfig{FullEvery: 24 * time.Hour, FullWithin: time.Minute, Overlap: 24 * time.Hour, DeltaEvery: time.Hour, DeltaOverlap: 12 * time.Hour, MaxAge: time.Minute},
		Pack: PackConfig{Every: 24 * time.Hour, Refresh: time.Hour, Overlap: 48 * time.Hour, Keep: 8},
		ACME: ACMEConfig{ExternalAccountRequired: true, HTTP01Port: 80, TLSALPN01Port: 443,
			AccountsPerAddress: 60, OrdersPerAccount: 60, OrdersPerDevice: 60, OrdersPerAddress: 6000, FailuresPerAccount: 30, NoncesPerAddress: 6000,
			RenewalInfoPerAddress: 6000, OpenOrdersPerAccount: 300},
		Approval: ApprovalConfig{RetryAfter: time.Minute, Lifetime: 7 * 24 * time.Hour, MaxWaiting: 1000},
		Webhook:  WebhookConfig{Events: webhook.DefaultEvents(), Timeout: 10 * time.Second},
		Audit:    AuditConfig{CheckpointEvery: time.Minute, HeadsFile: "audit-heads.log"},
		Log:      LogConfig{Level: "info", Format: "text", Refusals: 600},
	}
}

// LoadConfig reads the configuration of a home and lays the environment over
// it. The error for a bad one is ConfigFaults.
func LoadConfig(home string, getenv func(string) string) (Config, error) {
	path := filepath.Join(home, configFile)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, cmp.Or(Home(home).mustExist(), err)
	}
	if err != nil {
		return Config{}, err
	}
	defer file.Close()
	raw, err := readBounded(file)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return ParseConfig(path, raw, getenv)
}

// PublicURL is the base of the pointers in certificates, without a slash at its end.
func (c *Config) PublicURL() string {
	return strings.TrimSuffix(cmp.Or(c.URL, "http://"+c.Listen.HTTP), "/")
}

// Resolve makes the paths of a home's configuration absolute, those behind
// file: included.
func (c Config) Resolve(home string) (Config, error) {
	home, err := filepath.Abs(home)
	if err != nil {
		return c, err
	}
	if c.Audit.HeadsFile == "off" {
		c.Audit.HeadsFile = ""
	}
	in := func(path string) string {
		if path == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(home, path)
	}
	c.Policy, c.Webhook.Roots, c.EST.ProxyCert, c.Audit.HeadsFile = in(c.Policy), in(c.Webhook.Roots), in(c.EST.ProxyCert), in(c.Audit.HeadsFile)
	if !strings.Contains(c.DB, "://") {
		c.DB = in(c.DB)
	}
	for _, uri := range []*string{&c.Keys.Root, &c.Keys.Issuing, &c.Keys.PINRoot, &c.Keys.PINIssuing, &c.Webhook.Secret} {
		if path, ok := strings.CutPrefix(*uri, "file:"); ok {
			*uri = "file:" + in(path)
		}
	}
	return c, nil
}

// durationText writes a duration as people do: 5m, not 5m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// configKey is one key: a leaf of Config.
type configKey struct {
	path      string // "limits.header_timeout"
	env       string // "DEVICECA_LIMITS_HEADER_TIMEOUT"
	doc, unit string
	value     reflect.Value
}

// keys lists the keys of c in the order of the struct.
func (c *Config) keys() []configKey { return configKeys(reflect.ValueOf(c).Elem(), "") }

func configKeys(v reflect.Value, prefix string) (keys []configKey) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		path := prefix + field.Tag.Get("yaml")
		if field.Type.Kind() == reflect.Struct {
			keys = append(keys, configKeys(v.Field(i), path+".")...)
			continue
		}
		k := configKey{path: path, env: envName(path), doc: field.Tag.Get("doc"), unit: field.Tag.Get("unit"), value: v.Field(i)}
		keys = append(keys, k)
	}
	return keys
}

// envName is the environment variable of a key.
func envName(path string) string {
	return "DEVICECA_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}
