-- Under which number, and with which SHA-256, the record of a source server was last to be
-- put into the vault; that of the installation where source_server is empty. A database
-- that was put back from an old copy is known by it.

-- +goose Up
CREATE TABLE record_marks (
    source_server TEXT PRIMARY KEY,
    number        BIGINT NOT NULL,
    sum           BLOB NOT NULL
);

-- +goose StatementBegin
CREATE TRIGGER source_servers_deleted_mark AFTER DELETE ON source_servers BEGIN
    DELETE FROM record_marks WHERE source_server = OLD.id;
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER source_servers_deleted_mark;
DROP TABLE record_marks;
