-- +goose Up

-- When and why a CA was revoked; NULL if it was not.
ALTER TABLE issuer ADD COLUMN revoked INTEGER;
ALTER TABLE issuer ADD COLUMN reason INTEGER;
