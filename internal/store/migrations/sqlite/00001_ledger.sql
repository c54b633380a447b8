-- +goose Up

-- Times are microseconds since 1970 UTC. Everything is inserted in the order
-- of its key where possible: random-keyed indexes are what slows a ledger down
-- as it grows. certificate_key is the one that cannot be avoided.

CREATE TABLE device (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL,        -- the device ID as first written
    folded     TEXT    NOT NULL UNIQUE, -- the device ID without case
    level      TEXT    NOT NULL,
    grp        TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    credential TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    updated    INTEGER NOT NULL
);

CREATE TABLE credential (
    reference TEXT    PRIMARY KEY,
    device    TEXT    NOT NULL, -- as written; '' with a group credential
    folded    TEXT    NOT NULL,
    grp       TEXT    NOT NULL,
    names     TEXT    NOT NULL, -- JSON array of globs
    level     TEXT    NOT NULL,
    uses      INTEGER NOT NULL,
    used      INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    revoked   INTEGER,
    sealed    BLOB
) WITHOUT ROWID;

CREATE INDEX credential_device ON credential (folded) WHERE folded <> '';

CREATE TABLE issuer (
    name       TEXT    PRIMARY KEY,
    role       TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    key        TEXT    NOT NULL,
    cert       BLOB    NOT NULL,
    created    INTEGER NOT NULL
);

-- The first issuance index of an issuer that was not yet set aside.
CREATE TABLE issuance_index (
    issuer TEXT    PRIMARY KEY,
    next   INTEGER NOT NULL
);

-- Certificates are never deleted: id is dense.
CREATE TABLE certificate (
    id         INTEGER PRIMARY KEY,
    serial     BLOB    NOT NULL UNIQUE,
    issuer     TEXT    NOT NULL,
    device     INTEGER REFERENCES device (id), -- NULL: the CA's own
    key_id     BLOB    NOT NULL,
    profile    TEXT    NOT NULL,
    level      TEXT    NOT NULL,
    protocol   TEXT    NOT NULL,
    requester  TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    replaces   BLOB,
    issued     INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    request    BLOB    NOT NULL,
    decision   TEXT    NOT NULL,
    input      BLOB,
    der        BLOB    NOT NULL
);

CREATE INDEX certificate_key ON certificate (key_id);
CREATE INDEX certificate_device ON certificate (device);
CREATE INDEX certificate_not_after ON certificate (not_after);

-- The revocation journal holds what CRLs and status answers are made of, so
-- that they are read without the certificates.
CREATE TABLE revocation (
    sequence    INTEGER PRIMARY KEY,
    certificate INTEGER NOT NULL UNIQUE REFERENCES certificate (id),
    issuer      TEXT    NOT NULL,
    serial      BLOB    NOT NULL,
    not_after   INTEGER NOT NULL,
    revoked     INTEGER NOT NULL,
    reason      INTEGER NOT NULL,
    invalid     INTEGER
);

-- The last number given, of sequences that must not depend on what is left in a table.
CREATE TABLE counter (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
);

INSERT INTO counter (name, value) VALUES ('revocation', 0);

CREATE TABLE admin (
    name    TEXT    PRIMARY KEY,
    role    TEXT    NOT NULL,
    key_id  BLOB    NOT NULL UNIQUE,
    created INTEGER NOT NULL
);

CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
);

-- See package audit. event.id is dense; an entry's events are first … first+count-1.
CREATE TABLE audit_entry (
    sequence INTEGER PRIMARY KEY,
    time     INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    root     BLOB    NOT NULL,
    previous BLOB    NOT NULL
);

-- kind and device are copies out of the body, to select by; the body is what was hashed.
CREATE TABLE audit_event (
    id     INTEGER PRIMARY KEY,
    kind   TEXT NOT NULL,
    device TEXT NOT NULL, -- without case
    body   BLOB NOT NULL
);

-- One row, read last in each transaction that writes an entry: where the chain ends.
CREATE TABLE audit_head (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    sequence INTEGER NOT NULL,
    hash     BLOB    NOT NULL,
    event    INTEGER NOT NULL, -- id of the newest event
    dropped  INTEGER NOT NULL  -- entries up to this sequence have had their events dropped by age
);

INSERT INTO audit_head (one, sequence, hash, event, dropped) VALUES (1, 0, zeroblob(32), 0, 0);

CREATE TABLE audit_checkpoint (
    id        INTEGER PRIMARY KEY,
    sequence  INTEGER NOT NULL,
    head      BLOB    NOT NULL,
    time      INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    signature BLOB    NOT NULL
);

CREATE INDEX audit_checkpoint_sequence ON audit_checkpoint (sequence, id);
