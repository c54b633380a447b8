-- +goose Up

-- The external account binding as the client sent it (RFC 8555 §7.3.4); '' of accounts from before, and of those without.
ALTER TABLE acme_account ADD COLUMN binding TEXT NOT NULL DEFAULT '';

-- Whether the account ever got a certificate. Of accounts from before it is not known.
ALTER TABLE acme_account ADD COLUMN issued INTEGER NOT NULL DEFAULT 1;

CREATE INDEX acme_account_idle ON acme_account (credential, id) WHERE issued = 0;
CREATE INDEX acme_account_unbound ON acme_account (created) WHERE credential = '';
CREATE INDEX acme_order_unfulfilled ON acme_order (account, id) WHERE state <> 'valid';
