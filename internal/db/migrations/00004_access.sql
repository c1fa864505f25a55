-- +goose Up
-- Accounts, users, roles, policies and access keys: few, and read whole into
-- memory. The generation grows with every change, so that a reader knows when its
-- copy is old.
CREATE TABLE identities (
    kind    TEXT NOT NULL,
    account TEXT NOT NULL,
    name    TEXT NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (kind, account, name)
);
CREATE TABLE identity_generation (
    n BIGINT NOT NULL
);
INSERT INTO identity_generation (n) VALUES (1);

-- The one certificate that speaks for a source server; a server without a row
-- accepts any that was issued to it.
CREATE TABLE agent_certificates (
    source_server TEXT   NOT NULL PRIMARY KEY REFERENCES source_servers (id) ON DELETE CASCADE,
    serial        TEXT   NOT NULL,
    issued        BIGINT NOT NULL
);

CREATE TABLE webhooks (
    id      TEXT   NOT NULL PRIMARY KEY,
    account TEXT   NOT NULL,
    region  TEXT   NOT NULL,
    url     TEXT   NOT NULL,
    secret  BLOB   NOT NULL,
    types   TEXT   NOT NULL,
    created BIGINT NOT NULL
);
CREATE INDEX webhooks_account ON webhooks (account, region, created, id);

-- One row for each event and webhook, from the moment of the event until it was
-- delivered. attempts counts those that failed; dead ones are tried no more.
CREATE TABLE deliveries (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook  TEXT    NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event_id TEXT    NOT NULL,
    event    TEXT    NOT NULL,
    created  BIGINT  NOT NULL,
    attempts BIGINT  NOT NULL DEFAULT 0,
    next     BIGINT  NOT NULL,
    dead     BOOLEAN NOT NULL DEFAULT FALSE,
    error    TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX deliveries_due ON deliveries (dead, next, seq);
CREATE INDEX deliveries_webhook ON deliveries (webhook, seq);

-- +goose Down
DROP TABLE deliveries;
DROP TABLE webhooks;
DROP TABLE agent_certificates;
DROP TABLE identity_generation;
DROP TABLE identities;
