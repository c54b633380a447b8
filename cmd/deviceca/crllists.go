package main

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	cmpserver "github.com/deviceca/deviceca/cmp/server"
	"github.com/deviceca/deviceca/crl"
)

// crlLists are the CRLs that we publish, as CMP hands them out.
type crlLists struct{ *system }

// Newer is part of cmpserver.Lists: of the distribution points that certificates
// of ours name, and of CAs. The roots sign theirs elsewhere, and it lies in the ledger.
func (l crlLists) Newer(ctx context.Context, uri, issuer string, since time.Time, limit int64) ([]byte, error) {
	if err := l.closed(ctx); err != nil {
		return nil, err // also a root's: the snapshot's may be older than one that is out
	}
	path := issuer + ".crl"
	if uri != "" {
		var ours bool
		if path, ours = strings.CutPrefix(uri, l.cfg.PublicURL()+"/crl/"); !ours {
			return nil, nil
		}
	}
	if root, ok := strings.CutSuffix(path, ".crl"); ok && isRootName(root) {
		return l.rootList(ctx, root, since)
	}
	raw, err := crl.Files{Dir: l.home.path("crl"), Resolve: l.revocation.current.Load().resolve}.Newer(path, since, limit)
	if errors.Is(err, crl.ErrTooLong) {
		err = cmpserver.ErrTooLong
	}
	return raw, err
}

func (l crlLists) rootList(ctx context.Context, root string, since time.Time) ([]byte, error) {
	raw, err := l.store.Setting(ctx, crlSetting(l.service.Named(root)))
	if errors.Is(err, ca.ErrNoRecord) {
		return nil, nil // an external root, whose list is elsewhere
	}
	if err != nil {
		return nil, err
	}
	list, err := x509.ParseRevocationList(raw)
	if err != nil || !list.ThisUpdate.After(since) {
		return nil, err
	}
	return raw, nil
}
