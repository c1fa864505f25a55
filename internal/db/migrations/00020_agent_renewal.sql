-- The certificate that an agent has asked for and not shown yet.

-- +goose Up
ALTER TABLE agent_certificates ADD COLUMN offered TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE agent_certificates DROP COLUMN offered;
