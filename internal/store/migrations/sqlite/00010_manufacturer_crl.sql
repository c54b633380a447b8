-- +goose Up

-- How often the revocation lists of a manufacturer were replaced.
ALTER TABLE manufacturer ADD COLUMN version INTEGER NOT NULL DEFAULT 0;

-- What manufacturers' CAs revoked. A newer list takes the place of an older one, under a new id.
CREATE TABLE manufacturer_crl (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    manufacturer INTEGER NOT NULL,
    issuer       BLOB    NOT NULL, -- certificate of the CA that signed it, DER
    issuer_id    BLOB    NOT NULL, -- SHA-256 of that CA's name and key
    number       TEXT    NOT NULL, -- decimal; '' if the list has none
    this_update  INTEGER NOT NULL,
    next_update  INTEGER NOT NULL,
    entries      INTEGER NOT NULL,
    octets       INTEGER NOT NULL,
    sha256       TEXT    NOT NULL, -- of crl, hex
    added        INTEGER NOT NULL,
    crl          BLOB    NOT NULL, -- last: it may have megabytes
    UNIQUE (manufacturer, issuer_id)
);
