package admin

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/policy"
)

// now is the time in every test of this package.
var now = time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)

// fake is a CA in memory: core, reader and audit log. fail, if set, is what
// every call to it returns.
type fake struct {
	mu       sync.Mutex
	fail     error
	policy   *policy.Policy
	devices  map[string]device.Device
	creds    []device.Credential
	certs    []ca.Certificate
	issuers  []ca.IssuerRecord
	admins   []ca.Admin
	makers   []ca.Manufacturer
	ras      []ca.RA
	events   []AuditEvent
	actors   []string // of every change
	batches  []int    // sizes of imports
	verified AuditReport
}

// changed records who changed something, and fails if told to.
func (f *fake) changed(actor string, kind ca.EventKind, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.actors = append(f.actors, actor)
	f.events = append(f.events, AuditEvent{int64(len(f.events) + 1), ca.Event{Time: now, Kind: kind, Actor: actor, Device: id}})
	return nil
}

func (f *fake) Policy() *policy.Policy                      { return f.policy }
func (f *fake) Check(context.Context, *policy.Policy) error { return f.fail }
func (f *fake) Apply(_ context.Context, p *policy.Policy, actor string) error {
	if err := f.changed(actor, ca.EventPolicyApplied, ""); err != nil {
		return err
	}
	f.policy = p
	return nil
}

func (f *fake) Explain(_ context.Context, version string, in policy.Input) (policy.Decision, error) {
	if version != f.policy.Version() {
		return policy.Decision{}, ca.Errorf(ca.NotFound, "policy %s was not kept", version)
	}
	return f.policy.Explain(in), f.fail
}

func (f *fake) Policies(context.Context, int64, int) ([]ca.PolicyVersion, error) {
	return []ca.PolicyVersion{{ID: 1, Version: f.policy.Version(), First: now, Last: now}}, f.fail
}

func (f *fake) PolicyVersion(_ context.Context, version string) (*ca.PolicyVersion, error) {
	if version != f.policy.Version() {
		return nil, ca.ErrNoRecord
	}
	return &ca.PolicyVersion{ID: 1, Version: version, First: now, Last: now, Source: f.policy.Source()}, f.fail
}

func (f *fake) CACert(name string) ([]byte, bool) {
	for _, r := range slices.Backward(f.issuers) {
		if r.Name == name || r.Role == name {
			return r.Cert, true
		}
	}
	return nil, false
}

func (f *fake) Generations() (all []ca.Generation) {
	for _, r := range f.issuers {
		all = append(all, ca.Generation{IssuerRecord: r, Stage: ca.StageActive})
	}
	return all
}

func (f *fake) Chain(name string) [][]byte {
	der, _ := f.CACert(name)
	return [][]byte{der}
}

func (f *fake) Warning(string) string { return "" }

func (f *fake) MayRotate(string) error { return nil }

func (f *fake) Activate(_ context.Context, _, actor string) error {
	return f.changed(actor, ca.EventIssuerActivated, "")
}

func (f *fake) Revoke(_ context.Context, serial ca.Serial, reason int, invalid *time.Time, actor string) (*ca.Certificate, error) {
	if err := f.changed(actor, ca.EventRevoked, ""); err != nil {
		return nil, err
	}
	for i := range f.certs {
		c := &f.certs[i]
		if c.Serial != serial {
			continue
		}
		if c.Revocation != nil {
			return nil, ca.Errorf(ca.Conflict, "certificate %s is revoked already", serial)
		}
		c.Revocation = &ca.Revocation{Sequence: 1, Time: now, Reason: reason, Invalid: invalid}
		return c, nil
	}
	return nil, ca.Errorf(ca.NotFound, "there is no certificate %s", serial)
}

func (f *fake) RevokeLost(_ context.Context, serial ca.Serial, l ca.Lost, reason int, invalid *time.Time, actor string) (*ca.Certificate, error) {
	if err := f.changed(actor, ca.EventRevoked, ""); err != nil {
		return nil, err
	}
	f.certs = append(f.certs, ca.Certificate{Serial: serial, Issuer: l.Issuer, Revocation: &ca.Revocation{Sequence: 1, Time: now, Reason: reason, Invalid: invalid}})
	return &f.certs[len(f.certs)-1], nil
}

func (f *fake) Release(_ context.Context, serial ca.Serial, actor string) (*ca.Certificate, error) {
	if err := f.changed(actor, ca.EventReleased, ""); err != nil {
		return nil, err
	}
	for i := range f.certs {
		c := &f.certs[i]
		if c.Serial != serial {
			continue
		}
		if c.Revocation == nil || c.Revocation.Reason != ca.ReasonCertificateHold {
			return nil, ca.Errorf(ca.Conflict, "certificate %s is not on hold", serial)
		}
		c.Revocation = nil
		return c, nil
	}
	return nil, ca.Errorf(ca.NotFound, "there is no certificate %s", serial)
}

func (f *fake) AddDevice(ctx context.Context, d device.Device, uses int, ttl time.Duration, actor string) (*ca.Grant, error) {
	results, err := f.ImportDevices(ctx, []device.Device{d}, actor)
	if err == nil {
		err = results[0]
	}
	if err != nil {
		if err == ca.ErrRecorded {
			err = ca.Errorf(ca.Conflict, "device %s is there", d.ID)
		}
		return nil, err
	}
	return &ca.Grant{ID: d.ID, Level: d.Level, Reference: "ref", Secret: "s3cret", Uses: uses, Expires: now.Add(ttl)}, nil
}

func (f *fake) ImportDevices(_ context.Context, devices []device.Device, actor string) ([]error, error) {
	if err := f.changed(actor, ca.EventDeviceAdded, ""); err != nil {
		return nil, err
	}
	f.batches = append(f.batches, len(devices))
	results := make([]error, len(devices))
	for i, d := range devices {
		if _, ok := f.policy.Level(d.Level); !ok {
			results[i] = ca.Errorf(ca.Malformed, "there is no level %q", d.Level)
			continue
		}
		if _, there := f.devices[device.Fold(d.ID)]; there {
			results[i] = ca.ErrRecorded
			continue
		}
		d.State = cmp.Or(d.State, device.Claimed)
		d.Created, d.Updated = now, now
		f.devices[device.Fold(d.ID)] = d
	}
	return results, nil
}

func (f *fake) AddCredential(_ context.Context, c device.Credential, ttl time.Duration, actor string) (*ca.Grant, error) {
	if err := f.changed(actor, ca.EventCredentialAdded, c.Device); err != nil {
		return nil, err
	}
	c.Reference = fmt.Sprintf("ref%d", len(f.creds))
	f.creds = append(f.creds, c)
	return &ca.Grant{ID: c.Device, Group: c.Group, Level: c.Level, Reference: c.Reference, Secret: "s3cret", Uses: c.Uses, Expires: now.Add(ttl)}, nil
}

func (f *fake) RevokeCredential(_ context.Context, reference, actor string) error {
	if err := f.changed(actor, ca.EventCredentialRevoked, ""); err != nil {
		return err
	}
	for i := range f.creds {
		if f.creds[i].Reference == reference {
			f.creds[i].Revoked = &now
			return nil
		}
	}
	return ca.ErrNoRecord
}

func (f *fake) SetDevice(_ context.Context, id string, c device.Change, actor string) (*device.Device, error) {
	if err := f.changed(actor, ca.EventDeviceChanged, id); err != nil {
		return nil, err
	}
	d, ok := f.devices[device.Fold(id)]
	if !ok {
		return nil, ca.Errorf(ca.NotFound, "there is no device %s", id)
	}
	c.Apply(&d)
	f.devices[device.Fold(id)] = d
	return &d, nil
}

func (f *fake) RemoveDevice(_ context.Context, id, actor string) error {
	if err := f.changed(actor, ca.EventDeviceRemoved, id); err != nil {
		return err
	}
	if _, ok := f.devices[device.Fold(id)]; !ok {
		return ca.Errorf(ca.NotFound, "there is no device %s", id)
	}
	delete(f.devices, device.Fold(id))
	return nil
}

func (f *fake) MoveDevice(_ context.Context, id string, to device.State, reason int, actor string) (ca.Revoked, error) {
	if err := f.changed(actor, ca.EventDeviceMoved, id); err != nil {
		return ca.Revoked{}, err
	}
	d := f.devices[device.Fold(id)]
	if err := device.CheckMove(d.State, to); err != nil {
		return ca.Revoked{}, ca.Errorf(ca.Conflict, "device %s: %s", id, err)
	}
	d.State = to
	f.devices[device.Fold(id)] = d
	var revoked ca.Revoked
	for i := range f.certs {
		if c := &f.certs[i]; to == device.Retired && c.Device == d.ID {
			c.Revocation = &ca.Revocation{Time: now, Reason: reason}
			revoked.First, revoked.Count = append(revoked.First, *c), revoked.Count+1
		}
	}
	return revoked, nil
}

func (f *fake) Devices(_ context.Context, filter device.Filter, after string, limit int) (out []device.Device, err error) {
	for _, id := range slices.Sorted(func(yield func(string) bool) {
		for id := range f.devices {
			if !yield(id) {
				return
			}
		}
	}) {
		d := f.devices[id]
		if id > after && len(out) < limit && (filter.State == "" || filter.State == d.State) && (filter.Level == "" || filter.Level == d.Level) &&
			(filter.Group == "" || filter.Group == d.Group) && strings.HasPrefix(id, device.Fold(filter.Prefix)) {
			out = append(out, d)
		}
	}
	return out, f.fail
}

func (f *fake) Device(_ context.Context, id string) (*device.Device, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	d, ok := f.devices[device.Fold(id)]
	if !ok {
		return nil, ca.ErrNoRecord
	}
	return &d, nil
}

func (f *fake) Credentials(_ context.Context, filter ca.CredentialFilter, after string, limit int) (out []device.Credential, err error) {
	for _, c := range f.creds {
		if c.Reference > after && len(out) < limit && (filter.Device == "" || filter.Device == c.Device) && (filter.Group == "" || filter.Group == c.Group) {
			out = append(out, c)
		}
	}
	return out, f.fail
}

func (f *fake) Certificates(_ context.Context, filter ca.CertificateFilter, after int64, limit int) (out []ca.Certificate, err error) {
	for _, c := range f.certs {
		if c.ID > after && len(out) < limit && (filter.Device == "" || filter.Device == c.Device) &&
			(filter.Issuer == "" || filter.Issuer == c.Issuer) && (filter.Profile == "" || filter.Profile == c.Profile) &&
			(filter.Revoked == nil || *filter.Revoked == (c.Revocation != nil)) &&
			(filter.ExpiresBefore.IsZero() || c.NotAfter.Before(filter.ExpiresBefore)) && (filter.ExpiresAfter.IsZero() || c.NotAfter.After(filter.ExpiresAfter)) {
			out = append(out, c)
		}
	}
	return out, f.fail
}

func (f *fake) CertificateBySerial(_ context.Context, serial ca.Serial) (*ca.Certificate, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	for _, c := range f.certs {
		if c.Serial == serial {
			return &c, nil
		}
	}
	return nil, ca.ErrNoRecord
}

func (f *fake) Issuers(context.Context) ([]ca.IssuerRecord, error) { return f.issuers, f.fail }
func (f *fake) Admins(context.Context) ([]ca.Admin, error)         { return f.admins, f.fail }

func (f *fake) AddAdmin(_ context.Context, a ca.Admin, e ca.Event) error {
	for _, b := range f.admins {
		if a.Name == b.Name || a.KeyID == b.KeyID {
			return ca.ErrRecorded
		}
	}
	if err := f.changed(e.Actor, e.Kind, ""); err != nil {
		return err
	}
	f.admins = append(f.admins, a)
	return nil
}

func (f *fake) RemoveAdmin(_ context.Context, name string, e ca.Event) error {
	at := slices.IndexFunc(f.admins, func(a ca.Admin) bool { return a.Name == name })
	if at < 0 {
		return ca.ErrNoRecord
	}
	f.admins = slices.Delete(f.admins, at, at+1)
	return f.changed(e.Actor, e.Kind, "")
}

func (f *fake) AdminByKey(_ context.Context, keyID [32]byte) (*ca.Admin, error) {
	for _, a := range f.admins {
		if a.KeyID == keyID {
			return &a, nil
		}
	}
	return nil, ca.ErrNoRecord
}

func (f *fake) Events(_ context.Context, filter EventFilter, after int64, limit int) (out []AuditEvent, err error) {
	for _, e := range f.events {
		if e.ID > after && len(out) < limit && (filter.Kind == "" || filter.Kind == e.Kind) && (filter.Device == "" || filter.Device == e.Device) {
			out = append(out, e)
		}
	}
	return out, f.fail
}

func (f *fake) Verify(_ context.Context, progress func(AuditProgress)) (AuditReport, error) {
	progress(AuditProgress{Done: 1, Of: 2})
	return f.verified, f.fail
}

func (f *fake) CheckHeads(_ context.Context, heads []audit.Checkpoint) (fault string, err error) {
	for _, c := range heads {
		if c.Sequence > f.verified.Last {
			return "beyond the log", f.fail
		}
	}
	return "", f.fail
}

// signed makes a certificate; parent nil signs itself.
func signed(t *testing.T, name string, parent *x509.Certificate, parentKey crypto.Signer, until time.Time) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// world is a fake CA with an API before it.
type world struct {
	*fake
	api    *API
	saved  []byte // the policy file
	closed error  // what Options.Closed says
}

func serialOf(n byte) ca.Serial { return ca.NewSerial(uint64(n), [12]byte{n}) }

func newWorld(t *testing.T) *world {
	t.Helper()
	p, err := policy.Parse("policy.yaml", policy.Default())
	if err != nil {
		t.Fatal(err)
	}
	root, rootKey := signed(t, "root", nil, nil, now.AddDate(20, 0, 0))
	issuing, _ := signed(t, "issuing", root, rootKey, now.AddDate(5, 0, 0))
	f := &fake{policy: p, makers: []ca.Manufacturer{{Name: "bolt", Format: "idevid", Created: now}}, ras: []ca.RA{{Name: "line-1"}}, devices: map[string]device.Device{
		"box-1":  {ID: "box-1", Level: "software", State: device.Manufactured, Created: now, Updated: now},
		"lamp-1": {ID: "Lamp-1", Level: "software", State: device.Active, Created: now, Updated: now},
		"lamp-2": {ID: "lamp-2", Level: "software", Group: "hall", State: device.Suspended, Created: now, Updated: now},
	}}
	f.issuers = []ca.IssuerRecord{
		{Name: "root", Role: "root", Generation: 1, Key: "root", Cert: root.Raw, Created: now},
		{Name: "issuing-1", Role: "issuing", Generation: 1, Key: "issuing-1", Cert: issuing.Raw, Created: now},
	}
	f.creds = []device.Credential{
		{Reference: "a1", Device: "Lamp-1", Level: "software", Uses: 1, Created: now, Expires: now.Add(time.Hour), Sealed: []byte("sealed")},
		{Reference: "b2", Group: "lamps", Names: []string{"lamp-*"}, Level: "software", Uses: 9, Created: now, Expires: now.Add(time.Hour)},
	}
	input := policy.Input{Now: now, Protocol: "est", Operation: "enroll", Requester: policy.ByCredential,
		Device: policy.Device{ID: "Lamp-1", Level: "software", State: "claimed"}, Key: "ecdsa-p256"}
	raw, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	f.certs = []ca.Certificate{
		{ID: 1, Serial: serialOf(1), Issuer: "issuing-1", Device: "Lamp-1", Profile: "device", Level: "software", Protocol: "est", NotAfter: now.Add(time.Hour),
			Decision: p.Decide(input), Input: raw, DER: issuing.Raw},
		{ID: 2, Serial: serialOf(2), Issuer: "issuing-1", Device: "Lamp-1", Profile: "gateway", Level: "software", NotAfter: now.Add(48 * time.Hour), DER: issuing.Raw},
		{ID: 3, Serial: serialOf(3), Issuer: "issuing-1", Device: "server", Profile: "server", NotAfter: now.Add(48 * time.Hour), DER: issuing.Raw,
			Revocation: &ca.Revocation{Time: now, Reason: 4}},
		{ID: 4, Serial: serialOf(4), Issuer: "issuing-1", Device: "other", Profile: "device", NotAfter: now.Add(48 * time.Hour), DER: issuing.Raw,
			Revocation: &ca.Revocation{Time: now, Reason: ca.ReasonCertificateHold}},
		{ID: 5, Serial: serialOf(5), Issuer: "issuing-1", Profile: string(ca.BuiltinServer), NotAfter: now.Add(48 * time.Hour), DER: issuing.Raw, Input: raw},
		{ID: 6, Serial: serialOf(6), Issuer: "issuing-1", Profile: ca.ProfileLost, NotAfter: now.Add(48 * time.Hour), Revocation: &ca.Revocation{Time: now, Reason: 4}},
	}
	f.events = []AuditEvent{{1, ca.Event{Time: now, Kind: ca.EventIssued, Actor: "credential:a1", Device: "Lamp-1", Serial: serialOf(1)}},
		{2, ca.Event{Time: now, Kind: ca.EventRevoked, Actor: "admin:x", Serial: serialOf(3)}}}
	f.verified = AuditReport{First: 1, Last: 2, Events: 2, Head: "ab"}
	w := &world{fake: f}
	w.api = New(Options{
		Core: f, Reader: f, Audit: f,
		Counts: func(context.Context) (map[string]int64, error) { return map[string]int64{"devices": 2}, f.fail },
		Health: func(context.Context) map[string]error { return map[string]error{"token": nil, "database": f.fail} },
		Backup: func(_ context.Context, dir, actor string) (BackupReport, error) {
			return BackupReport{Dir: dir, Files: []string{"ledger.db"}, Bytes: 5}, f.changed(actor, ca.EventBackup, "")
		},
		Recover: func(_ context.Context, in Recovery, actor string) (RecoveryReport, error) {
			return RecoveryReport{Closed: true}, f.changed(actor, ca.EventRestored, "")
		},
		Closed:   func(context.Context) error { return w.closed },
		Rotation: f,
		Publish: func(_ context.Context, name string) ([]string, error) {
			if name != "" && name != "issuing" {
				return nil, ca.Errorf(ca.NotFound, "no CA called %q publishes CRLs here", name)
			}
			return []string{"issuing-1"}, f.fail
		},
		SavePolicy: func(source []byte) error { w.saved = source; return nil },
		Version:    "v0.0.0-test", Started: now.Add(-time.Hour),
		Now:    func() time.Time { return now },
		Logger: slog.New(slog.DiscardHandler),
	})
	return w
}

// enlist registers a new administrator and returns what they connect with.
func (w *world) enlist(t *testing.T, name string, role Role, until time.Time) tls.Certificate {
	t.Helper()
	cert, key := signed(t, name, nil, nil, until)
	w.admins = append(w.admins, ca.Admin{Name: name, Role: string(role), KeyID: sha256.Sum256(cert.RawSubjectPublicKeyInfo), Created: now,
		CertID: sha256.Sum256(cert.Raw), NotAfter: cert.NotAfter})
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// overTLS serves the API as the https listener does; the client shows certs.
func (w *world) overTLS(t *testing.T, certs ...tls.Certificate) *Client {
	t.Helper()
	srv := httptest.NewUnstartedServer(w.api.TLS())
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	conf := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.Certificates = certs
	c, err := NewServerClient(srv.URL, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// overSocket serves the API on a Unix socket.
func (w *world) overSocket(t *testing.T) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), SocketName)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: w.api.Socket(), ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	c := NewSocketClient(path)
	t.Cleanup(c.Close)
	return c
}

func (w *world) local() *Client { return NewLocalClient(w.api.Socket()) }

func (f *fake) RevokeCA(_ context.Context, name string, reason int, actor string) error {
	return f.changed(actor, ca.EventIssuerRevoked, "")
}

func (f *fake) Request(_ context.Context, role string) (CARequest, error) {
	return CARequest{Name: role + "-2", Role: role, Generation: 2, CSR: "csr"}, f.fail
}

func (f *fake) Take(_ context.Context, r ca.IssuerRecord, actor string) error {
	return f.changed(actor, ca.EventIssuerAdded, "")
}
