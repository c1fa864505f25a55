-- Source networks, the machine networks made for them, and their part in jobs.

-- +goose Up
CREATE TABLE source_networks (
    id             TEXT   NOT NULL PRIMARY KEY,
    account        TEXT   NOT NULL,
    region         TEXT   NOT NULL,
    vpc            TEXT   NOT NULL,
    origin_account TEXT   NOT NULL,
    origin_region  TEXT   NOT NULL,
    status         TEXT   NOT NULL,
    status_details TEXT   NOT NULL DEFAULT '',
    stack          TEXT   NOT NULL DEFAULT '',
    launched_vpc   TEXT   NOT NULL DEFAULT '',
    last           TEXT   NOT NULL DEFAULT '{}',
    configuration  TEXT   NOT NULL DEFAULT '{}',
    template       TEXT   NOT NULL DEFAULT '',
    created        BIGINT NOT NULL,
    tags           TEXT   NOT NULL DEFAULT '{}',
    UNIQUE (account, region, vpc, origin_account, origin_region)
);
CREATE INDEX source_networks_page ON source_networks (account, region, created, id);

CREATE TABLE network_stacks (
    account TEXT   NOT NULL,
    region  TEXT   NOT NULL,
    name    TEXT   NOT NULL,
    vpc     TEXT   NOT NULL,
    network TEXT   NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (account, region, name)
);

CREATE TABLE job_networks (
    job            TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    ordinal        BIGINT  NOT NULL,
    source_network TEXT    NOT NULL,
    stack          TEXT    NOT NULL,
    new            BOOLEAN NOT NULL,
    status         TEXT    NOT NULL,
    PRIMARY KEY (job, ordinal)
);
CREATE INDEX job_networks_network ON job_networks (source_network, job);

ALTER TABLE job_log ADD COLUMN network TEXT NOT NULL DEFAULT 'null';

-- +goose Down
ALTER TABLE job_log DROP COLUMN network;
DROP TABLE job_networks;
DROP TABLE network_stacks;
DROP TABLE source_networks;
