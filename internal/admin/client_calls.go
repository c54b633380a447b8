package admin

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// Lists take the key to start after ("" is the beginning) and the most lines
// to give (0: all); they fetch page after page as they are read, and end with
// the first error.

// Devices lists the inventory by ID.
func (c *Client) Devices(ctx context.Context, f device.Filter, after string, limit int) iter.Seq2[device.Device, error] {
	q := values("level", f.Level, "group", f.Group, "state", string(f.State), "prefix", f.Prefix, "after", after)
	return pages[device.Device](ctx, c, "/devices", inWindow(q, f.Window), limit)
}

// AddDevice enters a device and makes its credential.
func (c *Client) AddDevice(ctx context.Context, d NewDevice) (*ca.Grant, error) {
	return post[ca.Grant](ctx, c, "/devices", d)
}

// Device shows a device with what it holds.
func (c *Client) Device(ctx context.Context, id string) (*DeviceDetail, error) {
	return get[DeviceDetail](ctx, c, "/devices/"+url.PathEscape(id), nil)
}

// Suspend bars a device until it is resumed.
func (c *Client) Suspend(ctx context.Context, id string) (*Moved, error) {
	return post[Moved](ctx, c, "/devices/"+url.PathEscape(id)+"/suspend", struct{}{})
}

// Resume ends a suspension.
func (c *Client) Resume(ctx context.Context, id string) (*Moved, error) {
	return post[Moved](ctx, c, "/devices/"+url.PathEscape(id)+"/resume", struct{}{})
}

// Retire bars a device for good and revokes its certificates; reason "" is cessationOfOperation.
func (c *Client) Retire(ctx context.Context, id, reason string) (*Moved, error) {
	return post[Moved](ctx, c, "/devices/"+url.PathEscape(id)+"/retire", Revoke{Reason: reason})
}

// Credentials lists enrolment credentials by reference.
func (c *Client) Credentials(ctx context.Context, f ca.CredentialFilter, after string, limit int) iter.Seq2[device.Credential, error] {
	return pages[device.Credential](ctx, c, "/credentials", inWindow(values("device", f.Device, "group", f.Group, "after", after), f.Window), limit)
}

// AddCredential makes a credential for a device or a group.
func (c *Client) AddCredential(ctx context.Context, n NewCredential) (*ca.Grant, error) {
	return post[ca.Grant](ctx, c, "/credentials", n)
}

// RevokeCredential ends a credential.
func (c *Client) RevokeCredential(ctx context.Context, reference string) error {
	return c.do(ctx, http.MethodPost, "/credentials/"+url.PathEscape(reference)+"/revoke", nil, struct{}{}, nil)
}

// Certificates lists certificates, oldest first.
func (c *Client) Certificates(ctx context.Context, f ca.CertificateFilter, after string, limit int) iter.Seq2[ca.Certificate, error] {
	q := values("device", f.Device, "issuer", f.Issuer, "profile", f.Profile,
		"expires_before", stamp(f.ExpiresBefore), "expires_after", stamp(f.ExpiresAfter), "after", after)
	if f.Revoked != nil {
		q.Set("revoked", strconv.FormatBool(*f.Revoked))
	}
	return pages[ca.Certificate](ctx, c, "/certificates", inWindow(q, f.Window), limit)
}

// Certificate shows one certificate.
func (c *Client) Certificate(ctx context.Context, serial ca.Serial) (*CertificateDetail, error) {
	return get[CertificateDetail](ctx, c, "/certificates/"+serial.String(), nil)
}

// RevokeCertificate revokes one certificate, for good unless the reason is certificateHold.
func (c *Client) RevokeCertificate(ctx context.Context, serial ca.Serial, r Revoke) (*ca.Certificate, error) {
	return post[ca.Certificate](ctx, c, "/certificates/"+serial.String()+"/revoke", r)
}

// ReleaseCertificate ends a hold.
func (c *Client) ReleaseCertificate(ctx context.Context, serial ca.Serial) (*ca.Certificate, error) {
	return post[ca.Certificate](ctx, c, "/certificates/"+serial.String()+"/release", struct{}{})
}

// Publish makes CRLs and revocation packs now; name "" means those of all CAs.
func (c *Client) Publish(ctx context.Context, name string) (*Published, error) {
	return post[Published](ctx, c, "/publish", Publish{name})
}

// CAs lists the CA certificates.
func (c *Client) CAs(ctx context.Context) ([]CA, error) {
	p, err := get[Page[CA]](ctx, c, "/cas", nil)
	if err != nil {
		return nil, err
	}
	return p.Items, nil
}

// Chain is a CA's certificate and those above it.
func (c *Client) Chain(ctx context.Context, name string) (*Chain, error) {
	return get[Chain](ctx, c, "/cas/"+url.PathEscape(name), nil)
}

// Policy is the policy in force.
func (c *Client) Policy(ctx context.Context) (*PolicyView, error) {
	return get[PolicyView](ctx, c, "/policy", nil)
}

// ApplyPolicy puts a policy in force. A Problem with Faults says what is wrong with it.
func (c *Client) ApplyPolicy(ctx context.Context, file, source string) (*PolicySummary, error) {
	return post[PolicySummary](ctx, c, "/policy", Policy{File: file, Source: source})
}

// Admins lists the administrators.
func (c *Client) Admins(ctx context.Context) ([]Admin, error) {
	p, err := get[Page[Admin]](ctx, c, "/admins", nil)
	if err != nil {
		return nil, err
	}
	return p.Items, nil
}

// AddAdmin registers an administrator.
func (c *Client) AddAdmin(ctx context.Context, n NewAdmin) (*Admin, error) {
	return post[Admin](ctx, c, "/admins", n)
}

// RemoveAdmin takes effect with the admin's next request.
func (c *Client) RemoveAdmin(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/admins/"+url.PathEscape(name), nil, nil, nil)
}

// Status says how the CA fares.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return get[Status](ctx, c, "/status", nil)
}

// Backup copies the home into dir, an absolute path on the server's host.
func (c *Client) Backup(ctx context.Context, dir string) (*BackupReport, error) {
	return post[BackupReport](ctx, c, "/backup", NewBackup{Dir: dir})
}

// Recover enters what happened after the snapshot that the home was restored from, and opens it if told to.
func (c *Client) Recover(ctx context.Context, in Recovery) (*RecoveryReport, error) {
	return post[RecoveryReport](ctx, c, "/recover", in)
}

// AuditEvents lists the audit log, oldest first.
func (c *Client) AuditEvents(ctx context.Context, f EventFilter, after int64, limit int) iter.Seq2[AuditEvent, error] {
	key := ""
	if after > 0 {
		key = strconv.FormatInt(after, 10)
	}
	return pages[AuditEvent](ctx, c, "/audit", inWindow(values("kind", string(f.Kind), "device", f.Device, "after", key), f.Window), limit)
}

// RequestCA makes the key of a role's next CA generation, and a request for its certificate.
func (c *Client) RequestCA(ctx context.Context, role string) (*CARequest, error) {
	return post[CARequest](ctx, c, "/cas/"+url.PathEscape(role)+"/request", struct{}{})
}

// ActivateCA lets a CA that is published issue at once.
func (c *Client) ActivateCA(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodPost, "/cas/"+url.PathEscape(name)+"/activate", nil, struct{}{}, nil)
}

// TakeCA enters a CA certificate.
func (c *Client) TakeCA(ctx context.Context, n NewCA) error {
	return c.do(ctx, http.MethodPost, "/cas", nil, n, nil)
}

// RevokeCA takes a CA generation out of service.
func (c *Client) RevokeCA(ctx context.Context, name, reason string) error {
	return c.do(ctx, http.MethodPost, "/cas/"+url.PathEscape(name)+"/revoke", nil, RevokedCA{Reason: reason}, nil)
}
