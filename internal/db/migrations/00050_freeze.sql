-- For how long the filesystems were held still for a recovery point, in nanoseconds.

-- +goose Up
ALTER TABLE recovery_points ADD COLUMN freeze BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE recovery_points DROP COLUMN freeze;
