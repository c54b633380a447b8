-- +goose Up

-- Certificates whose device has not proven to us that it has the key. Such a
-- certificate does not own the key. Confirmed, it leaves this table; older records are all proven.
CREATE TABLE unproven (
    certificate INTEGER PRIMARY KEY REFERENCES certificate (id),
    vouched     INTEGER NOT NULL -- 1: a registration authority says that it has verified possession
);

-- Who waits for the certConf of a certificate.
CREATE INDEX cmp_transaction_waiting ON cmp_transaction (serial) WHERE deadline IS NOT NULL;

-- 0, or the id of the entry that began a line under a name that somebody else had before: another CA, or
-- another RA's key. An entry with an anchor, or the key, of an earlier one continues its line.
ALTER TABLE manufacturer ADD COLUMN lineage INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ra ADD COLUMN lineage INTEGER NOT NULL DEFAULT 0;
