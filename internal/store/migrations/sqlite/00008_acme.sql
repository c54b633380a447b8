-- +goose Up

-- ACME. See package acme. No id is ever given twice: clients keep them in URLs.
CREATE TABLE acme_account (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    thumbprint BLOB    NOT NULL UNIQUE, -- of the key, RFC 7638
    key        BLOB    NOT NULL,        -- SubjectPublicKeyInfo
    status     TEXT    NOT NULL,
    contact    TEXT    NOT NULL,        -- JSON array
    agreed     INTEGER NOT NULL,
    credential TEXT    NOT NULL,        -- that it is bound to; '' if none
    device     TEXT    NOT NULL,        -- of the credential, as written; '' if a group's, or none
    folded     TEXT    NOT NULL,
    created    INTEGER NOT NULL
);

CREATE INDEX acme_account_device ON acme_account (folded) WHERE folded <> '';

CREATE TABLE acme_order (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    account        INTEGER NOT NULL,
    state          TEXT    NOT NULL, -- open, processing, valid, invalid
    identifiers    TEXT    NOT NULL, -- JSON
    authorizations TEXT    NOT NULL, -- JSON array of ids
    profile        TEXT    NOT NULL, -- as asked for; '' is the level's first
    not_before     INTEGER,
    not_after      INTEGER,
    replaces       TEXT    NOT NULL, -- as the client named the certificate; '' if none
    created        INTEGER NOT NULL,
    expires        INTEGER NOT NULL,
    csr            BLOB,             -- only while processing
    serial         BLOB,             -- only when valid
    error          TEXT              -- JSON, only when invalid
);

CREATE INDEX acme_order_account ON acme_order (account, id);
CREATE INDEX acme_order_expires ON acme_order (expires);
CREATE INDEX acme_order_replaces ON acme_order (replaces) WHERE replaces <> '';

CREATE TABLE acme_authorization (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    account    INTEGER NOT NULL,
    type       TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    wildcard   INTEGER NOT NULL,
    device     TEXT    NOT NULL, -- whose identifier it is
    status     TEXT    NOT NULL,
    way        TEXT    NOT NULL, -- in which it became valid
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    validated  INTEGER,
    spki       BLOB,             -- the key that was attested
    evidence   TEXT,             -- JSON
    challenges TEXT    NOT NULL, -- JSON
    busy       INTEGER NOT NULL, -- a challenge is being validated
    version    INTEGER NOT NULL
);

CREATE INDEX acme_authorization_valid ON acme_authorization (account, type, value) WHERE status = 'valid';
CREATE INDEX acme_authorization_expires ON acme_authorization (expires);
CREATE INDEX acme_authorization_busy ON acme_authorization (id) WHERE busy = 1;
