-- +goose Up

-- Every policy that was in force, by what it says, so that its decisions can be explained later.
CREATE TABLE policy (
    id      INTEGER PRIMARY KEY,
    digest  BLOB    NOT NULL UNIQUE, -- SHA-256 of the source
    version TEXT    NOT NULL,        -- as decisions name it
    source  BLOB    NOT NULL,
    first   INTEGER NOT NULL,        -- put in force
    last    INTEGER NOT NULL,        -- put in force again
    turn    INTEGER NOT NULL         -- the greatest is of the one that was put in force last, whatever clocks say
);

CREATE INDEX policy_version ON policy (version);
CREATE INDEX policy_turn ON policy (turn);

-- For lists that begin at a time, or with the newest.
CREATE INDEX certificate_issued ON certificate (issued);
CREATE INDEX credential_created ON credential (created, reference);
CREATE INDEX device_created ON device (created, folded);
