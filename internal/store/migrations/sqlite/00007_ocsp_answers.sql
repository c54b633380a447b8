-- +goose Up

-- Signed OCSP answers, for other servers on this ledger and for the next start.
-- Any may be forgotten.
CREATE TABLE ocsp_answer (
    id       INTEGER PRIMARY KEY,
    serial   BLOB    NOT NULL,
    form     INTEGER NOT NULL,
    issuer   TEXT    NOT NULL,
    state    INTEGER NOT NULL, -- sequence of the revocation it speaks of, 0 for good
    expires  INTEGER NOT NULL,
    response BLOB    NOT NULL,
    UNIQUE (serial, form)
);

CREATE INDEX ocsp_answer_expires ON ocsp_answer (expires);
