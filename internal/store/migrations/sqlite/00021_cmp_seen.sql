-- +goose Up

-- transactionIDs of CMP messages that had no messageTime, remembered for as long as what protects them lives, so that they
-- cannot be replayed. See package cmp/server.
CREATE TABLE cmp_seen (
    id      BLOB    PRIMARY KEY, -- SHA-256 of the transactionID
    owner   TEXT    NOT NULL,    -- credential or protection certificate
    expires INTEGER NOT NULL
);

CREATE INDEX cmp_seen_owner ON cmp_seen (owner);
CREATE INDEX cmp_seen_expires ON cmp_seen (expires);
