-- Templates, launch actions, what became of an instance's record, servers that
-- live in another account, and server data that waits to be deleted.

-- +goose Up
CREATE TABLE replication_templates (
    id            TEXT   NOT NULL PRIMARY KEY,
    account       TEXT   NOT NULL,
    region        TEXT   NOT NULL,
    created       BIGINT NOT NULL,
    configuration TEXT   NOT NULL,
    tags          TEXT   NOT NULL DEFAULT '{}'
);
CREATE INDEX replication_templates_page ON replication_templates (account, region, created, id);

CREATE TABLE launch_templates (
    id       TEXT   NOT NULL PRIMARY KEY,
    account  TEXT   NOT NULL,
    region   TEXT   NOT NULL,
    created  BIGINT NOT NULL,
    settings TEXT   NOT NULL,
    tags     TEXT   NOT NULL DEFAULT '{}'
);
CREATE INDEX launch_templates_page ON launch_templates (account, region, created, id);

-- resource is a source server or a launch template; it is checked before.
CREATE TABLE launch_actions (
    resource TEXT   NOT NULL,
    id       TEXT   NOT NULL,
    position BIGINT NOT NULL,
    name     TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    PRIMARY KEY (resource, id),
    UNIQUE (resource, position),
    UNIQUE (resource, name)
);

-- vault_server is where the disks of an instance lie in the vault. A released
-- instance is not listed any more, but its machine runs on.
ALTER TABLE recovery_instances ADD COLUMN vault_server TEXT NOT NULL DEFAULT '';
ALTER TABLE recovery_instances ADD COLUMN connection TEXT NOT NULL DEFAULT '';
ALTER TABLE recovery_instances ADD COLUMN failback TEXT NOT NULL DEFAULT 'null';
UPDATE recovery_instances SET vault_server = source_server;
CREATE INDEX recovery_instances_vault ON recovery_instances (vault_server);

ALTER TABLE job_servers ADD COLUMN actions TEXT NOT NULL DEFAULT 'null';

ALTER TABLE source_servers ADD COLUMN staging_account TEXT NOT NULL DEFAULT '';
ALTER TABLE source_servers ADD COLUMN staging_server TEXT NOT NULL DEFAULT '';
CREATE INDEX source_servers_staging ON source_servers (staging_server) WHERE staging_server <> '';

CREATE TABLE vault_purges (
    source_server TEXT   NOT NULL PRIMARY KEY,
    requested     BIGINT NOT NULL
);

-- +goose Down
DROP TABLE vault_purges;
DROP INDEX source_servers_staging;
ALTER TABLE source_servers DROP COLUMN staging_server;
ALTER TABLE source_servers DROP COLUMN staging_account;
ALTER TABLE job_servers DROP COLUMN actions;
DROP INDEX recovery_instances_vault;
ALTER TABLE recovery_instances DROP COLUMN failback;
ALTER TABLE recovery_instances DROP COLUMN connection;
ALTER TABLE recovery_instances DROP COLUMN vault_server;
DROP TABLE launch_actions;
DROP TABLE launch_templates;
DROP TABLE replication_templates;
