-- +goose Up

-- The lives of this ledger: the first, and one for each time that it was restored from a
-- backup. Event IDs from first_event on are the instance's own; those below belong to the
-- one before.
CREATE TABLE instance (
    number      INTEGER PRIMARY KEY, -- 1, 2, …; the highest is in force
    id          BLOB    NOT NULL UNIQUE, -- 16 random octets
    since       INTEGER NOT NULL,
    first_event INTEGER NOT NULL,
    snapshot    INTEGER, -- of a restored one: what happened after this is not in the ledger
    known_event INTEGER, -- of a restored one: the newest event in the snapshot
    opened      INTEGER  -- NULL: restored, and not acknowledged yet
);

INSERT INTO instance (number, id, since, first_event, opened)
VALUES (1, randomblob(16), CAST(strftime('%s', 'now') AS INTEGER) * 1000000, 1, CAST(strftime('%s', 'now') AS INTEGER) * 1000000);

-- Issuance indexes that a restore passed over: first ≤ index < next. No certificate in the
-- ledger has one, but for those entered after the restore as revoked.
CREATE TABLE index_gap (
    issuer TEXT    NOT NULL,
    first  INTEGER NOT NULL,
    next   INTEGER NOT NULL,
    PRIMARY KEY (issuer, first)
) WITHOUT ROWID;

-- Certificates, and other uses of credentials, that a log tells of and the restored ledger does not
-- hold. serial is a certificate's, or names the event.
CREATE TABLE lost_certificate (
    serial BLOB    PRIMARY KEY,
    issuer TEXT    NOT NULL,
    device TEXT    NOT NULL,
    issued INTEGER NOT NULL
) WITHOUT ROWID;
