-- +goose Up

-- When a CA begins to issue, microseconds; NULL: as soon as it was entered.
ALTER TABLE issuer ADD COLUMN activates INTEGER;
