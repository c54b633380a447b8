-- +goose Up

-- Who may vouch for devices. An entry never changes but to end, and stays.

CREATE TABLE manufacturer (
    id          INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL,
    format      TEXT    NOT NULL,
    level       TEXT    NOT NULL,
    anchors     TEXT    NOT NULL, -- JSON array of base64 DER
    constraints TEXT    NOT NULL, -- JSON
    created     INTEGER NOT NULL,
    withdrawn   INTEGER
);

CREATE UNIQUE INDEX manufacturer_name ON manufacturer (name, format) WHERE withdrawn IS NULL;

CREATE TABLE ra (
    id      INTEGER PRIMARY KEY,
    name    TEXT    NOT NULL,
    cert    BLOB    NOT NULL,
    key_id  BLOB    NOT NULL,
    names   TEXT    NOT NULL, -- JSON array of globs
    levels  TEXT    NOT NULL, -- JSON array
    created INTEGER NOT NULL,
    removed INTEGER
);

CREATE UNIQUE INDEX ra_name ON ra (name) WHERE removed IS NULL;
CREATE UNIQUE INDEX ra_key ON ra (key_id) WHERE removed IS NULL;
