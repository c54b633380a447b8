-- +goose Up

-- Events up to this entry may be gone, says the signature too. 0: it says nothing of the kind.
ALTER TABLE audit_checkpoint ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
