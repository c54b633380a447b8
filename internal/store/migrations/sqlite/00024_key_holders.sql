-- +goose Up
-- Who else has a key, and the newest certificate of a device for a key: found without
-- reading all certificates for that key, of which a device that keeps its key has many.
CREATE INDEX certificate_key_device ON certificate (key_id, device);
DROP INDEX certificate_key;
