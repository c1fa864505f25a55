-- Recovery plans, their steps, and runs of them. A run has copies of everything,
-- so that it outlives edits of its plan, and the plan itself.

-- +goose Up
CREATE TABLE recovery_plans (
    id          TEXT   NOT NULL PRIMARY KEY,
    account     TEXT   NOT NULL,
    region      TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    description TEXT   NOT NULL,
    status      TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    updated     BIGINT NOT NULL,
    tags        TEXT   NOT NULL DEFAULT '{}',
    UNIQUE (account, region, name)
);
CREATE INDEX recovery_plans_page ON recovery_plans (account, region, created, id);

CREATE TABLE recovery_plan_steps (
    id           TEXT   NOT NULL PRIMARY KEY,
    plan         TEXT   NOT NULL REFERENCES recovery_plans (id) ON DELETE CASCADE,
    ordinal      BIGINT NOT NULL,
    name         TEXT   NOT NULL,
    wait_minutes BIGINT NOT NULL DEFAULT 0,
    created      BIGINT NOT NULL,
    updated      BIGINT NOT NULL
);
CREATE INDEX recovery_plan_steps_page ON recovery_plan_steps (plan, ordinal, id);

CREATE TABLE recovery_plan_servers (
    step          TEXT   NOT NULL REFERENCES recovery_plan_steps (id) ON DELETE CASCADE,
    ordinal       BIGINT NOT NULL,
    plan          TEXT   NOT NULL REFERENCES recovery_plans (id) ON DELETE CASCADE,
    source_server TEXT   NOT NULL,
    impact        TEXT   NOT NULL,
    PRIMARY KEY (step, ordinal),
    UNIQUE (plan, source_server)
);
CREATE INDEX recovery_plan_servers_server ON recovery_plan_servers (source_server);

CREATE TABLE plan_executions (
    id            TEXT    NOT NULL PRIMARY KEY,
    account       TEXT    NOT NULL,
    region        TEXT    NOT NULL,
    plan          TEXT    NOT NULL,
    drill         BOOLEAN NOT NULL,
    status        TEXT    NOT NULL,
    started       BIGINT  NOT NULL,
    completed     BIGINT  NOT NULL DEFAULT 0,
    error_code    TEXT    NOT NULL DEFAULT '',
    error_message TEXT    NOT NULL DEFAULT '',
    tags          TEXT    NOT NULL DEFAULT '{}'
);
CREATE INDEX plan_executions_page ON plan_executions (account, region, started, id);
CREATE INDEX plan_executions_plan ON plan_executions (plan, started, id);
CREATE INDEX plan_executions_running ON plan_executions (started, id) WHERE status IN ('CREATED', 'IN_PROGRESS', 'CANCELLING');

CREATE TABLE plan_execution_steps (
    id            TEXT   NOT NULL PRIMARY KEY,
    execution     TEXT   NOT NULL REFERENCES plan_executions (id) ON DELETE CASCADE,
    ordinal       BIGINT NOT NULL,
    name          TEXT   NOT NULL,
    status        TEXT   NOT NULL,
    attempt       BIGINT NOT NULL,
    wait_minutes  BIGINT NOT NULL DEFAULT 0,
    wait_until    BIGINT NOT NULL DEFAULT 0,
    error_code    TEXT   NOT NULL DEFAULT '',
    error_message TEXT   NOT NULL DEFAULT '',
    created       BIGINT NOT NULL,
    updated       BIGINT NOT NULL
);
CREATE INDEX plan_execution_steps_page ON plan_execution_steps (execution, ordinal, id);

CREATE TABLE plan_execution_servers (
    step          TEXT   NOT NULL REFERENCES plan_execution_steps (id) ON DELETE CASCADE,
    ordinal       BIGINT NOT NULL,
    execution     TEXT   NOT NULL REFERENCES plan_executions (id) ON DELETE CASCADE,
    source_server TEXT   NOT NULL,
    impact        TEXT   NOT NULL,
    snapshot      TEXT   NOT NULL DEFAULT '',
    job           TEXT   NOT NULL DEFAULT '',
    PRIMARY KEY (step, ordinal)
);
CREATE INDEX plan_execution_servers_server ON plan_execution_servers (source_server);
CREATE INDEX plan_execution_servers_execution ON plan_execution_servers (execution);

-- What a request made, so that the same request sent again makes nothing more.
CREATE TABLE client_tokens (
    account   TEXT   NOT NULL,
    region    TEXT   NOT NULL,
    operation TEXT   NOT NULL,
    token     TEXT   NOT NULL,
    digest    TEXT   NOT NULL,
    resource  TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    PRIMARY KEY (account, region, operation, token)
);
CREATE INDEX client_tokens_created ON client_tokens (created);

-- +goose Down
DROP TABLE client_tokens;
DROP TABLE plan_execution_servers;
DROP TABLE plan_execution_steps;
DROP TABLE plan_executions;
DROP TABLE recovery_plan_servers;
DROP TABLE recovery_plan_steps;
DROP TABLE recovery_plans;
