-- +goose Up

-- The one certificate of an administrator. Of those registered before, only the key is known: both are NULL.
ALTER TABLE admin ADD COLUMN cert_id BLOB;      -- SHA-256 of the certificate
ALTER TABLE admin ADD COLUMN not_after INTEGER; -- its end, microseconds
