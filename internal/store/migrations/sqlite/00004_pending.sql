-- +goose Up

-- Requests that wait for an administrator. state is waiting, approved, denied
-- or issued; that one expired, the clock says.
CREATE TABLE pending (
    id      INTEGER PRIMARY KEY AUTOINCREMENT, -- an id that an administrator has seen never means another request
    key     BLOB    NOT NULL, -- what makes a repeated request the same
    folded  TEXT    NOT NULL, -- the device ID without case
    state   TEXT    NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    decided INTEGER,
    by_whom TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    serial  BLOB,
    facts   TEXT    NOT NULL  -- what the administrator is shown, JSON
);

CREATE INDEX pending_key ON pending (key, id);
CREATE INDEX pending_device ON pending (folded, id);
CREATE INDEX pending_waiting ON pending (expires) WHERE state = 'waiting';
