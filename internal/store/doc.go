// Package store is the durable ledger, in SQLite.
//
// # Writing
//
// Every change is a function over a transaction ([tx]), handed to one writer
// goroutine. The writer takes what is queued (at most 64 changes, and without
// waiting for more), runs them in one transaction, adds one entry to the audit
// chain over the events of those that succeeded, commits, and answers all. A
// change that fails leaves nothing behind and does not disturb the others. No
// answer is given before the commit is on disk (WAL, synchronous=FULL).
//
// If the commit itself fails, it may still have reached the disk. Everybody in
// the batch is then told Unavailable, and nothing that the batch recorded may
// be handed out; the next batch reads the state that is really there, and
// never what the writer remembers.
//
// # Reading
//
// Reads use connections of their own, cannot write, and see the last commit.
//
// # Engines
//
// What depends on the engine is in sqlite.go and migrations/sqlite; the rest
// is SQL that PostgreSQL understands too, but for its placeholders. Package
// storetest is the suite that an engine must pass.
package store
