-- +goose Up

-- Who asked for what waits: whoever holds many places is told to wait before others are,
-- and what a credential, account, registration authority or manufacturer has queued ends with it.
-- A state more: void, which was waiting or approved and is not any more.
ALTER TABLE pending ADD COLUMN actor TEXT NOT NULL DEFAULT '';
ALTER TABLE pending ADD COLUMN credential TEXT NOT NULL DEFAULT '';
UPDATE pending SET actor = coalesce(json_extract(facts, '$.actor'), ''), credential = coalesce(json_extract(facts, '$.credential'), '')
WHERE state IN ('waiting', 'approved');
CREATE INDEX pending_open ON pending (expires) WHERE state IN ('waiting', 'approved');

-- Retired devices with certificates that are still to be revoked, and how far that has come.
CREATE TABLE retiring (
    device  INTEGER PRIMARY KEY REFERENCES device (id),
    after   INTEGER NOT NULL, -- certificate.id up to which it is done
    revoked INTEGER NOT NULL, -- time of the retirement
    reason  INTEGER NOT NULL,
    actor   TEXT    NOT NULL
);

-- Transactions that go on in a later message keep the message that began them: they are counted.
CREATE INDEX cmp_transaction_open ON cmp_transaction (actor, begun) WHERE state IN ('challenged', 'polling');
