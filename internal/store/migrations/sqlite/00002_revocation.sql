-- +goose Up

-- Certificates with noRevAvail (RFC 9608) are in no CRL, pack or OCSP answer.
-- Older records are told by the extension's object identifier.
ALTER TABLE certificate ADD COLUMN no_status INTEGER NOT NULL DEFAULT 0;
ALTER TABLE revocation ADD COLUMN no_status INTEGER NOT NULL DEFAULT 0;
UPDATE certificate SET no_status = 1 WHERE instr(der, x'0603551d38') > 0;
UPDATE revocation SET no_status = 1 WHERE certificate IN (SELECT id FROM certificate WHERE no_status = 1);

-- Complete CRLs are read from revocation_serial alone, in its order; deltas and
-- the head of an issuer's journal from the other.
CREATE INDEX revocation_serial ON revocation (issuer, serial, not_after, revoked, reason, invalid) WHERE no_status = 0;
CREATE INDEX revocation_issuer ON revocation (issuer, sequence) WHERE no_status = 0;

-- The other lines of the revocation journal: releases from hold. Both take
-- their sequence from one counter.
CREATE TABLE release (
    sequence    INTEGER PRIMARY KEY,
    certificate INTEGER NOT NULL REFERENCES certificate (id),
    issuer      TEXT    NOT NULL,
    serial      BLOB    NOT NULL,
    released    INTEGER NOT NULL,
    no_status   INTEGER NOT NULL
);

CREATE INDEX release_issuer ON release (issuer, sequence) WHERE no_status = 0;
