-- +goose Up

-- A key made for a device whose certificate must be approved first. See package cmp/server.
ALTER TABLE cmp_transaction ADD COLUMN made_key BLOB;   -- its SubjectPublicKeyInfo
ALTER TABLE cmp_transaction ADD COLUMN sealed_key BLOB; -- the private key, encrypted to the device alone
