-- +goose Up

-- CMP transactions, kept for minutes. See package cmp/server.
CREATE TABLE cmp_transaction (
    id             BLOB    PRIMARY KEY, -- SHA-256 of the transactionID
    begun          INTEGER NOT NULL,
    expires        INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    request        BLOB    NOT NULL,
    answer         BLOB,
    actor          TEXT    NOT NULL,
    signer         BLOB,
    serial         BLOB,
    req_id         INTEGER NOT NULL,
    nonce          BLOB,
    deadline       INTEGER,             -- only while waiting for certConf
    confirm        BLOB,
    confirm_answer BLOB,
    message        BLOB,                -- only while polling
    profile        TEXT    NOT NULL DEFAULT ''
);

CREATE INDEX cmp_transaction_deadline ON cmp_transaction (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX cmp_transaction_expires ON cmp_transaction (expires);
