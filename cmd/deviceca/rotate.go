package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/store"
)

// Rotation, the server's part: it never sees a root's key.

type rotation struct{ *system }

// Request is part of admin.Rotation. A key that an interrupted rotation left
// behind is used, not made twice.
func (r rotation) Request(ctx context.Context, role string) (admin.CARequest, error) {
	name, generation := r.service.Next(role)
	key, err := r.keys.Key(ctx, name)
	if errors.Is(err, keys.ErrNotFound) {
		spec, specErr := r.specOf(role)
		if specErr != nil {
			return admin.CARequest{}, specErr
		}
		key, err = r.keys.Generate(ctx, name, spec)
	}
	if errors.Is(err, keys.ErrUnavailable) {
		return admin.CARequest{}, ca.Away("the token that holds the CA keys", err)
	}
	if err != nil {
		return admin.CARequest{}, err
	}
	csr, err := ca.SubordinateCSR(key, role, generation, ca.Hierarchy{Organization: r.cfg.Name, URL: r.cfg.PublicURL(), Now: time.Now()})
	if err != nil {
		return admin.CARequest{}, err
	}
	return admin.CARequest{Name: name, Role: role, Generation: generation,
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))}, nil
}

// specOf is the kind of key that the role's newest generation has: the next one has the same.
func (r rotation) specOf(role string) (keys.Spec, error) {
	der, ok := r.service.CACert(role)
	if !ok {
		return "", ca.Errorf(ca.NotFound, "there is no %s CA to follow", role)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "", err
	}
	return specFor(cert.PublicKey)
}

// Take is part of admin.Rotation.
func (r rotation) Take(ctx context.Context, record ca.IssuerRecord, actor string) error {
	return r.service.Take(ctx, record, actor)
}

// Rotation, the root's part: commands that open the root's token.

// signSubordinate signs the request for a new generation with the newest root of its kind. A
// home from before quarantine had a root of its own gets that root first.
func signSubordinate(ctx context.Context, home Home, request admin.CARequest) ([]admin.NewCA, error) {
	block, _ := pem.Decode([]byte(request.CSR))
	if block == nil {
		return nil, errors.New("the request is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("the request of %s: %w", request.Name, err)
	}
	v, err := openVault(ctx, home)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	var made []admin.NewCA
	root, ok := v.newest(ca.RootOf(request.Role))
	if !ok {
		first, err := v.firstQuarantineRoot(ctx)
		if err != nil {
			return nil, err
		}
		root, made = first, append(made, newCA(first))
	}
	key, err := v.keys.Key(ctx, root.Key)
	if err != nil {
		return nil, err
	}
	cert, err := ca.NewSubordinate(root.Cert, key, request.Role, request.Generation, csr.PublicKey, v.hierarchy(root.Name))
	if err != nil {
		return nil, err
	}
	return append(made, admin.NewCA{Name: request.Name, Role: request.Role, Generation: request.Generation, Cert: string(pemCert(cert))}), nil
}

func newCA(r ca.IssuerRecord) admin.NewCA {
	return admin.NewCA{Name: r.Name, Role: r.Role, Generation: r.Generation, Cert: string(pemCert(r.Cert))}
}

// firstQuarantineRoot makes the anchor of quarantine, with a key like the root's.
func (v *vault) firstQuarantineRoot(ctx context.Context) (ca.IssuerRecord, error) {
	r := ca.IssuerRecord{Name: "quarantine-root-1", Role: "quarantine-root", Generation: 1, Key: "quarantine-root-1"}
	root, _ := v.newest("root")
	key, err := v.keyLike(ctx, r.Key, root)
	if err != nil {
		return r, err
	}
	r.Cert, err = ca.NewQuarantineRoot(key, r.Generation, v.hierarchy(""))
	return r, err
}

// keyLike makes the key called name, of the kind that another CA has; one that an interrupted
// rotation left behind is used.
func (v *vault) keyLike(ctx context.Context, name string, other ca.IssuerRecord) (keys.Key, error) {
	cert, err := x509.ParseCertificate(other.Cert)
	if err != nil {
		return nil, err
	}
	spec, err := specFor(cert.PublicKey)
	if err != nil {
		return nil, err
	}
	key, err := v.keys.Key(ctx, name)
	if errors.Is(err, keys.ErrNotFound) {
		key, err = v.keys.Generate(ctx, name, spec)
	}
	return key, err
}

// makeRoot makes the next root of a role and the two certificates that lead between it
// and the one before (RFC 9810 §4.4: OldWithNew, NewWithOld).
func makeRoot(ctx context.Context, home Home, role string) ([]admin.NewCA, error) {
	v, err := openVault(ctx, home)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	old, ok := v.newest(role)
	if !ok {
		first, err := v.firstQuarantineRoot(ctx)
		return []admin.NewCA{newCA(first)}, err
	}
	oldKey, err := v.keys.Key(ctx, old.Key)
	if err != nil {
		return nil, err
	}
	generation := old.Generation + 1
	name := fmt.Sprintf("%s-%d", role, generation)
	key, err := v.keyLike(ctx, name, old)
	if err != nil {
		return nil, err
	}
	newRoot := ca.NewRoot
	if role == "quarantine-root" {
		newRoot = ca.NewQuarantineRoot
	}
	root, err := newRoot(key, generation, v.hierarchy(""))
	if err != nil {
		return nil, err
	}
	newWithOld, err := ca.NewCross(root, old.Cert, oldKey, v.hierarchy(old.Name))
	if err != nil {
		return nil, err
	}
	oldWithNew, err := ca.NewCross(old.Cert, root, key, v.hierarchy(name))
	if err != nil {
		return nil, err
	}
	// The root last: as soon as it is there, everything that leads to it is.
	return []admin.NewCA{
		{Name: fmt.Sprintf("%s-by-%d", name, old.Generation), Role: "cross", Generation: generation, Cert: string(pemCert(newWithOld))},
		{Name: fmt.Sprintf("%s-by-%d", old.Name, generation), Role: "cross", Generation: generation, Cert: string(pemCert(oldWithNew))},
		{Name: name, Role: role, Generation: generation, Cert: string(pemCert(root))},
	}, nil
}

// signRootCRLs renews the CRL of every root: over the CAs that the ledger says are revoked.
func signRootCRLs(ctx context.Context, home Home) ([]RootCRL, error) {
	v, err := openVault(ctx, home)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	var signed []RootCRL
	lists := map[string][]byte{}
	for _, root := range v.roots {
		key, err := v.keys.Key(ctx, root.Key)
		if err != nil {
			return nil, err
		}
		crl, err := v.signCRL(ctx, root, key)
		if err != nil {
			return nil, err
		}
		if lists[root.Name], err = v.ledger.Setting(ctx, crlSetting(root.Name)); err != nil {
			return nil, err
		}
		signed = append(signed, crl)
	}
	return signed, v.writeRootLists(lists)
}

// vault is the root's token with the ledger beside it, for the few commands
// that sign with a root. It does not take the home's lock: a server may run.
type vault struct {
	home   Home
	cfg    Config
	ledger *store.Store
	keys   keys.Provider
	roots  []ca.IssuerRecord
	all    []ca.IssuerRecord
}

func openVault(ctx context.Context, home Home) (_ *vault, err error) {
	v := &vault{home: home}
	if err := home.mustExist(); err != nil {
		return nil, err
	}
	if v.cfg, err = loadHome(home, os.Getenv); err != nil {
		return nil, err
	}
	if v.ledger, err = openLedger(ctx, home, v.cfg, quietLogger()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	if v.all, err = v.ledger.Issuers(ctx); err != nil {
		return nil, err
	}
	if _, err := v.ledger.Setting(ctx, crlSetting("root-1")); errors.Is(err, ca.ErrNoRecord) {
		return nil, hinted(errors.New("the root of this CA is external: its key is not here"),
			"`ca rotate issuing --csr FILE` makes a request for it to sign; its CRL is renewed where its key is")
	} else if err != nil {
		return nil, err
	}
	for _, r := range v.all {
		if r.IsRoot() {
			v.roots = append(v.roots, r)
		}
	}
	if v.keys, err = openKeys(ctx, home, v.cfg, "root", quietLogger()); err != nil {
		return nil, hinted(fmt.Errorf("the root's token: %w", err), "put the root's token back in place for this command")
	}
	return v, nil
}

func (v *vault) Close() error {
	var errs []error
	if v.keys != nil {
		errs = append(errs, v.keys.Close())
	}
	return errors.Join(append(errs, v.ledger.Close())...)
}

// newest is the root of a role that signs. There is always one of role "root".
func (v *vault) newest(role string) (best ca.IssuerRecord, found bool) {
	for _, r := range v.roots {
		if r.Role == role && r.Generation > best.Generation {
			best, found = r, true
		}
	}
	return best, found
}

func (v *vault) hierarchy(root string) ca.Hierarchy {
	return ca.Hierarchy{Organization: v.cfg.Name, URL: v.cfg.PublicURL(), Root: root, Now: time.Now()}
}

func crlSetting(root string) string { return "crl/" + root }

// signCRL makes a root's next CRL.
func (v *vault) signCRL(ctx context.Context, root ca.IssuerRecord, key keys.Key) (RootCRL, error) {
	now := time.Now()
	switch before, err := v.ledger.Setting(ctx, crlSetting(root.Name)); {
	case err == nil:
		crl, err := x509.ParseRevocationList(before)
		if err != nil {
			return RootCRL{}, fmt.Errorf("the CRL of %s before: %w", root.Name, err)
		}
		if err := v.ledger.RaiseCounter(ctx, "crl", root.Name, crl.Number.Int64()); err != nil {
			return RootCRL{}, err
		}
	case !errors.Is(err, ca.ErrNoRecord): // a new root has none yet
		return RootCRL{}, err
	}
	number, err := v.ledger.Journal().NextNumber(ctx, root.Name) // a counter, which a restore moves on
	if err != nil {
		return RootCRL{}, err
	}
	issuer, err := x509.ParseCertificate(root.Cert)
	if err != nil {
		return RootCRL{}, err
	}
	var revoked []ca.RevokedCA
	for _, r := range v.all {
		cert, err := x509.ParseCertificate(r.Cert)
		if err != nil {
			return RootCRL{}, err
		}
		if r.Revoked != nil && cert.CheckSignatureFrom(issuer) == nil {
			revoked = append(revoked, ca.RevokedCA{Serial: cert.SerialNumber, Time: r.Revoked.Time, Reason: r.Revoked.Reason})
		}
	}
	next := now.Add(rootCRLLife)
	crl, err := ca.RootCRL(root.Cert, key, number, revoked, now, next)
	if err != nil {
		return RootCRL{}, err
	}
	if err := v.ledger.PutSetting(ctx, crlSetting(root.Name), crl,
		ca.Event{Time: now, Kind: ca.EventRootCRL, Actor: "admin:local", Issuer: root.Name, Reason: fmt.Sprintf("number %d, %d revoked", number, len(revoked))}); err != nil {
		return RootCRL{}, err
	}
	return RootCRL{Root: root.Name, File: v.home.path(root.Role + ".crl"), Number: number, Revoked: len(revoked), This: now.Add(-ca.BackdateCA).Truncate(time.Second), Next: next.Truncate(time.Second)}, nil
}

// The commands.

// defaultLead is how long a CA is published before it issues: parties that fetch lists and certificates
// once a day know it by then.
const defaultLead = 24 * time.Hour

func (a *app) caRotate() *cobra.Command {
	var csrFile, certFile string
	var lead time.Duration
	var now bool
	cmd := withJSON(&cobra.Command{
		Use:   "rotate issuing|quarantine|root|quarantine-root",
		Short: "Make the next generation of a CA; takes the root token",
		Long: `Make the next generation of a CA: a new key, signed by the newest root. Its certificate, CRL, pack and OCSP
answers are published at once, and it issues from --activate-in on, when parties that fetch lists have fetched
its too; the server sees to that by itself, also after a restart. --now skips the wait, and "ca activate" ends
it; "ca revoke" withdraws a generation that must not come. The generation before is served until the last of its
certificates has expired, and devices go on renewing with certificates of either.

Rotating root makes a new root and the two certificates that lead between it and the old one; devices that
trust either go on working. Give them time to learn the new root from cacerts, then rotate issuing.

Quarantine stands under a root of its own. Where there is none yet, rotating quarantine makes it.

With an external root, --csr writes the request for the new generation, and --cert takes what the root made of it.`,
		Example: `  deviceca ca rotate issuing --home ./deviceca-data
  deviceca ca rotate issuing --activate-in 72h
  deviceca ca rotate issuing --now
  deviceca ca rotate issuing --csr issuing-2.csr
  deviceca ca rotate issuing --cert issuing-2.crt`,
		Args:      takes("issuing, quarantine, root or quarantine-root"),
		ValidArgs: []string{"issuing", "quarantine", "root", "quarantine-root"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.onHost(cmd, "CAs are rotated on the CA's host"); err != nil {
				return err
			}
			home, role := Home(a.home(cmd)), args[0]
			if !slices.Contains(caRoles, role) {
				return usagef("%q is not the role of a CA: rotate issuing, quarantine, root or quarantine-root", role)
			}
			if now {
				lead = 0
			}
			if lead < 0 {
				return usagef("--activate-in %s: a CA cannot have issued before it was made", lead)
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				made, err := newGeneration(ctx, c, home, role, csrFile, certFile)
				if err != nil || csrFile != "" {
					return err
				}
				next := &made[len(made)-1]
				if (ca.IssuerRecord{Role: next.Role}).Subordinate() && lead > 0 {
					next.Activates = a.now().Add(lead).UTC().Truncate(time.Second)
				}
				if err := takeAll(ctx, c, home, made); err != nil {
					return err
				}
				if !next.Activates.IsZero() {
					a.output(cmd).note("%s is published, and issues from %s; at once: deviceca ca activate %[1]s", next.Name, next.Activates.Format(time.RFC3339))
				}
				cas, err := c.CAs(ctx)
				if err != nil {
					return err
				}
				return a.output(cmd).cas(cas)
			})
		},
	})
	cmd.Flags().StringVar(&csrFile, "csr", "", "only write the request, for a root that lives elsewhere")
	cmd.Flags().StringVar(&certFile, "cert", "", "take the certificate that a root elsewhere made of it")
	durationFlag(cmd, &lead, "activate-in", defaultLead, "how long it is published before it issues")
	cmd.Flags().BoolVar(&now, "now", false, "let it issue at once; parties that have not fetched its lists refuse devices until they do")
	cmd.MarkFlagsMutuallyExclusive("csr", "cert")
	cmd.MarkFlagsMutuallyExclusive("activate-in", "now")
	return cmd
}

func (a *app) caActivate() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "activate NAME",
		Short:   "Let a CA that is published issue at once",
		Long:    `Let an issuing or quarantine CA that is published issue at once, instead of at its time. It needs no root token.`,
		Example: `  deviceca ca activate issuing-2`,
		Args:    takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.onHost(cmd, "CAs are activated on the CA's host"); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.ActivateCA(ctx, args[0]); err != nil {
					return err
				}
				cas, err := c.CAs(ctx)
				if err != nil {
					return err
				}
				return a.output(cmd).cas(cas)
			})
		},
	})
}

// takeAll enters new CAs in their order. A new root has a list before anything stands below it.
func takeAll(ctx context.Context, c *admin.Client, home Home, made []admin.NewCA) error {
	for _, m := range made {
		if err := c.TakeCA(ctx, m); err != nil {
			return err
		}
		if (ca.IssuerRecord{Role: m.Role}).IsRoot() {
			if _, err := signRootCRLs(ctx, home); err != nil {
				return err
			}
		}
	}
	return nil
}

// newGeneration makes the certificates of a role's next generation.
func newGeneration(ctx context.Context, c *admin.Client, home Home, role, csrFile, certFile string) ([]admin.NewCA, error) {
	if role == "root" || role == "quarantine-root" {
		if csrFile != "" || certFile != "" {
			return nil, usagef("a root signs itself: --csr and --cert are for the CAs below it")
		}
		return makeRoot(ctx, home, role)
	}
	request, err := c.RequestCA(ctx, role)
	if err != nil {
		return nil, err
	}
	switch {
	case csrFile != "":
		return nil, writeFile(csrFile, []byte(request.CSR), 0o644)
	case certFile != "":
		cert, err := readCert(certFile)
		return []admin.NewCA{{Name: request.Name, Role: role, Generation: request.Generation, Cert: string(pemCert(cert))}}, err
	}
	return signSubordinate(ctx, home, *request)
}

func (a *app) caRevoke() *cobra.Command {
	var reason string
	cmd := withJSON(&cobra.Command{
		Use:   "revoke NAME --reason REASON",
		Short: "Revoke an issuing or quarantine CA; takes the root token",
		Long: `Revoke one generation of an issuing or quarantine CA: none of its certificates authenticates a device any more,
cacerts leaves it out, and the root's CRL says so. Rotate first: the generation that issues cannot be revoked. One
that is only published can, and never issues then.`,
		Example: `  deviceca ca revoke issuing-1 --reason keyCompromise`,
		Args:    takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.onHost(cmd, "CAs are revoked on the CA's host"); err != nil {
				return err
			}
			if err := need(cmd, "reason"); err != nil {
				return err
			}
			if _, err := ca.ParseReason(reason); err != nil {
				return &usageError{err: err}
			}
			home := Home(a.home(cmd))
			v, err := openVault(cmd.Context(), home) // the root's token must be there before anything is done
			if err != nil {
				return err
			}
			if err := v.Close(); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.RevokeCA(ctx, args[0], reason); err != nil {
					return err
				}
				if _, err := signRootCRLs(ctx, home); err != nil {
					return err
				}
				return a.output(cmd).done("revoked", args[0])
			})
		},
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why: keyCompromise, superseded, cessationOfOperation, …")
	return cmd
}
