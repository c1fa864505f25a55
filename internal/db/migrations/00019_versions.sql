-- Listings remember what they made of a row for as long as its version stays. The
-- triggers give it another one whatever changes it, so no statement can forget to.
-- A version is random: a row that was deleted and comes again has another one.

-- +goose Up
ALTER TABLE source_servers ADD COLUMN version BIGINT NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN version BIGINT NOT NULL DEFAULT 0;
DROP INDEX source_servers_page;
DROP INDEX jobs_page;
-- With the version, so that a page is found without reading its rows.
CREATE INDEX source_servers_page ON source_servers (account, region, added, id, version);
CREATE INDEX jobs_page ON jobs (account, region, created, id, version);

-- +goose StatementBegin
CREATE TRIGGER source_servers_inserted AFTER INSERT ON source_servers BEGIN
    UPDATE source_servers SET version = random() WHERE rowid = NEW.rowid;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER source_servers_updated AFTER UPDATE ON source_servers WHEN NEW.version = OLD.version BEGIN
    UPDATE source_servers SET version = random() WHERE rowid = NEW.rowid;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
    UPDATE jobs SET version = random() WHERE rowid = NEW.rowid;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER jobs_updated AFTER UPDATE ON jobs WHEN NEW.version = OLD.version BEGIN
    UPDATE jobs SET version = random() WHERE rowid = NEW.rowid;
END;
-- +goose StatementEnd

-- What takes part in a job is a part of it.
-- +goose StatementBegin
CREATE TRIGGER job_servers_inserted AFTER INSERT ON job_servers BEGIN
    UPDATE jobs SET version = random() WHERE id = NEW.job;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER job_servers_updated AFTER UPDATE ON job_servers BEGIN
    UPDATE jobs SET version = random() WHERE id = NEW.job;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER job_servers_deleted AFTER DELETE ON job_servers BEGIN
    UPDATE jobs SET version = random() WHERE id = OLD.job;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER job_networks_inserted AFTER INSERT ON job_networks BEGIN
    UPDATE jobs SET version = random() WHERE id = NEW.job;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER job_networks_updated AFTER UPDATE ON job_networks BEGIN
    UPDATE jobs SET version = random() WHERE id = NEW.job;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER job_networks_deleted AFTER DELETE ON job_networks BEGIN
    UPDATE jobs SET version = random() WHERE id = OLD.job;
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER job_networks_deleted;
DROP TRIGGER job_networks_updated;
DROP TRIGGER job_networks_inserted;
DROP TRIGGER job_servers_deleted;
DROP TRIGGER job_servers_updated;
DROP TRIGGER job_servers_inserted;
DROP TRIGGER jobs_updated;
DROP TRIGGER jobs_inserted;
DROP TRIGGER source_servers_updated;
DROP TRIGGER source_servers_inserted;
DROP INDEX jobs_page;
DROP INDEX source_servers_page;
ALTER TABLE jobs DROP COLUMN version;
ALTER TABLE source_servers DROP COLUMN version;
CREATE INDEX source_servers_page ON source_servers (account, region, added, id);
CREATE INDEX jobs_page ON jobs (account, region, created, id);
