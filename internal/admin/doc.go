// Package admin is the administrator's side of the CA: a JSON API over HTTP and
// the client that speaks it.
//
// There is one code path for every administrative act: [Client] → [API] → core.
// The API is reached in three ways, which differ only in how they know who asks:
//
//   - [API.Socket] on the Unix socket in the home directory, for its owner (see [Listen]);
//   - [API.TLS] on the https listener under [Prefix], for whoever holds the key
//     of a registered admin certificate, within the bounds of a [Role];
//   - [API.Socket] again, called in-process by [NewLocalClient], when no server runs.
//
// routes.go holds the table of all routes with the roles that may use each.
// Bodies are JSON, bounded, without unknown fields. Lists are paged by key:
// a page names the key that the next one starts after, and the last page names
// none. Errors are RFC 9457 problem documents ([Problem]), made from ca.Error
// kinds in errors.go and nowhere else.
package admin
