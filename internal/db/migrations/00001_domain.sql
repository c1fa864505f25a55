-- Times are microseconds since 1970 (0: not yet); JSON columns hold what is
-- only ever read and written whole.

-- +goose Up
CREATE TABLE accounts (
    id          TEXT   NOT NULL,
    region      TEXT   NOT NULL,
    initialized BIGINT NOT NULL,
    PRIMARY KEY (id, region)
);

CREATE TABLE source_servers (
    id                        TEXT   NOT NULL PRIMARY KEY,
    account                   TEXT   NOT NULL,
    region                    TEXT   NOT NULL,
    hardware_id               TEXT   NOT NULL,
    agent_version             TEXT   NOT NULL,
    added                     BIGINT NOT NULL,
    first_byte                BIGINT NOT NULL DEFAULT 0,
    last_seen                 BIGINT NOT NULL DEFAULT 0,
    last_launch               TEXT   NOT NULL DEFAULT 'null',
    last_launch_result        TEXT   NOT NULL,
    recovery_instance         TEXT   NOT NULL DEFAULT '',
    properties                TEXT   NOT NULL,
    replication               TEXT   NOT NULL,
    replication_configuration TEXT   NOT NULL,
    launch_configuration      TEXT   NOT NULL,
    tags                      TEXT   NOT NULL DEFAULT '{}',
    UNIQUE (account, region, hardware_id)
);
CREATE INDEX source_servers_page ON source_servers (account, region, added, id);

CREATE TABLE recovery_points (
    id            TEXT   NOT NULL PRIMARY KEY,
    source_server TEXT   NOT NULL,
    expected      BIGINT NOT NULL,
    taken         BIGINT NOT NULL,
    consistency   TEXT   NOT NULL,
    method        TEXT   NOT NULL,
    epoch         BIGINT NOT NULL
);
CREATE INDEX recovery_points_page ON recovery_points (source_server, taken, id);
CREATE INDEX recovery_points_latest ON recovery_points (source_server, epoch);

CREATE TABLE jobs (
    id        TEXT   NOT NULL PRIMARY KEY,
    account   TEXT   NOT NULL,
    region    TEXT   NOT NULL,
    type      TEXT   NOT NULL,
    initiated TEXT   NOT NULL,
    status    TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    ended     BIGINT NOT NULL DEFAULT 0,
    tags      TEXT   NOT NULL DEFAULT '{}'
);
CREATE INDEX jobs_page ON jobs (account, region, created, id);
CREATE INDEX jobs_running ON jobs (account, region) WHERE status <> 'COMPLETED';

CREATE TABLE job_servers (
    job           TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    ordinal       BIGINT NOT NULL,
    source_server TEXT   NOT NULL,
    snapshot      TEXT   NOT NULL DEFAULT '',
    instance      TEXT   NOT NULL DEFAULT '',
    status        TEXT   NOT NULL,
    PRIMARY KEY (job, ordinal)
);
CREATE INDEX job_servers_server ON job_servers (source_server, job);

-- step makes writing a line again, after a crash, leave one line.
CREATE TABLE job_log (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    job           TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    step          TEXT   NOT NULL,
    time          BIGINT NOT NULL,
    event         TEXT   NOT NULL,
    source_server TEXT   NOT NULL DEFAULT '',
    instance      TEXT   NOT NULL DEFAULT '',
    raw_error     TEXT   NOT NULL DEFAULT '',
    note          TEXT   NOT NULL DEFAULT '',
    conversion    TEXT   NOT NULL DEFAULT 'null',
    UNIQUE (job, step)
);
CREATE INDEX job_log_page ON job_log (job, seq);

CREATE TABLE recovery_instances (
    id            TEXT    NOT NULL PRIMARY KEY,
    account       TEXT    NOT NULL,
    region        TEXT    NOT NULL,
    source_server TEXT    NOT NULL,
    job           TEXT    NOT NULL,
    drill         BOOLEAN NOT NULL,
    state         TEXT    NOT NULL,
    wanted        BOOLEAN NOT NULL,
    launched      BIGINT  NOT NULL,
    point         TEXT    NOT NULL,
    point_taken   BIGINT  NOT NULL,
    properties    TEXT    NOT NULL,
    tags          TEXT    NOT NULL DEFAULT '{}'
);
CREATE INDEX recovery_instances_page ON recovery_instances (account, region, launched, id);
CREATE INDEX recovery_instances_server ON recovery_instances (source_server);

-- +goose Down
DROP TABLE recovery_instances;
DROP TABLE job_log;
DROP TABLE job_servers;
DROP TABLE jobs;
DROP TABLE recovery_points;
DROP TABLE source_servers;
DROP TABLE accounts;
