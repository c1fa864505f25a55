-- The generation of the configuration grows with every change of the tables that are
-- kept in the vault as a whole (configuration.go). Triggers see to it, so that no
-- statement can forget to.

-- +goose Up
CREATE TABLE configuration_generation (
    n BIGINT NOT NULL
);
INSERT INTO configuration_generation (n) VALUES (1);

-- +goose StatementBegin
CREATE TRIGGER accounts_inserted_configuration AFTER INSERT ON accounts BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER accounts_updated_configuration AFTER UPDATE ON accounts BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER accounts_deleted_configuration AFTER DELETE ON accounts BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER replication_templates_inserted_configuration AFTER INSERT ON replication_templates BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER replication_templates_updated_configuration AFTER UPDATE ON replication_templates BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER replication_templates_deleted_configuration AFTER DELETE ON replication_templates BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER launch_templates_inserted_configuration AFTER INSERT ON launch_templates BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER launch_templates_updated_configuration AFTER UPDATE ON launch_templates BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER launch_templates_deleted_configuration AFTER DELETE ON launch_templates BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER launch_actions_inserted_configuration AFTER INSERT ON launch_actions BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER launch_actions_updated_configuration AFTER UPDATE ON launch_actions BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER launch_actions_deleted_configuration AFTER DELETE ON launch_actions BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER recovery_plans_inserted_configuration AFTER INSERT ON recovery_plans BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER recovery_plans_updated_configuration AFTER UPDATE ON recovery_plans BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER recovery_plans_deleted_configuration AFTER DELETE ON recovery_plans BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER recovery_plan_steps_inserted_configuration AFTER INSERT ON recovery_plan_steps BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER recovery_plan_steps_updated_configuration AFTER UPDATE ON recovery_plan_steps BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER recovery_plan_steps_deleted_configuration AFTER DELETE ON recovery_plan_steps BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER recovery_plan_servers_inserted_configuration AFTER INSERT ON recovery_plan_servers BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER recovery_plan_servers_updated_configuration AFTER UPDATE ON recovery_plan_servers BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER recovery_plan_servers_deleted_configuration AFTER DELETE ON recovery_plan_servers BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER source_networks_inserted_configuration AFTER INSERT ON source_networks BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER source_networks_updated_configuration AFTER UPDATE ON source_networks BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER source_networks_deleted_configuration AFTER DELETE ON source_networks BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER network_stacks_inserted_configuration AFTER INSERT ON network_stacks BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER network_stacks_updated_configuration AFTER UPDATE ON network_stacks BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER network_stacks_deleted_configuration AFTER DELETE ON network_stacks BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER identities_inserted_configuration AFTER INSERT ON identities BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER identities_updated_configuration AFTER UPDATE ON identities BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER identities_deleted_configuration AFTER DELETE ON identities BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER webhooks_inserted_configuration AFTER INSERT ON webhooks BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER webhooks_updated_configuration AFTER UPDATE ON webhooks BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER webhooks_deleted_configuration AFTER DELETE ON webhooks BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER agent_certificates_inserted_configuration AFTER INSERT ON agent_certificates BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER agent_certificates_updated_configuration AFTER UPDATE ON agent_certificates BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER agent_certificates_deleted_configuration AFTER DELETE ON agent_certificates BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- Of source servers only those that stand for one of another account: the others have
-- records of their own in the vault.

-- +goose StatementBegin
CREATE TRIGGER extended_servers_inserted_configuration AFTER INSERT ON source_servers WHEN NEW.staging_server <> '' BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER extended_servers_updated_configuration AFTER UPDATE OF hardware_id, agent_version, last_launch_result, properties, replication_configuration, launch_configuration, tags
    ON source_servers WHEN NEW.staging_server <> '' BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER extended_servers_deleted_configuration AFTER DELETE ON source_servers WHEN OLD.staging_server <> '' BEGIN
    UPDATE configuration_generation SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER extended_servers_deleted_configuration;
DROP TRIGGER extended_servers_updated_configuration;
DROP TRIGGER extended_servers_inserted_configuration;
DROP TRIGGER agent_certificates_deleted_configuration;
DROP TRIGGER agent_certificates_updated_configuration;
DROP TRIGGER agent_certificates_inserted_configuration;
DROP TRIGGER webhooks_deleted_configuration;
DROP TRIGGER webhooks_updated_configuration;
DROP TRIGGER webhooks_inserted_configuration;
DROP TRIGGER identities_deleted_configuration;
DROP TRIGGER identities_updated_configuration;
DROP TRIGGER identities_inserted_configuration;
DROP TRIGGER network_stacks_deleted_configuration;
DROP TRIGGER network_stacks_updated_configuration;
DROP TRIGGER network_stacks_inserted_configuration;
DROP TRIGGER source_networks_deleted_configuration;
DROP TRIGGER source_networks_updated_configuration;
DROP TRIGGER source_networks_inserted_configuration;
DROP TRIGGER recovery_plan_servers_deleted_configuration;
DROP TRIGGER recovery_plan_servers_updated_configuration;
DROP TRIGGER recovery_plan_servers_inserted_configuration;
DROP TRIGGER recovery_plan_steps_deleted_configuration;
DROP TRIGGER recovery_plan_steps_updated_configuration;
DROP TRIGGER recovery_plan_steps_inserted_configuration;
DROP TRIGGER recovery_plans_deleted_configuration;
DROP TRIGGER recovery_plans_updated_configuration;
DROP TRIGGER recovery_plans_inserted_configuration;
DROP TRIGGER launch_actions_deleted_configuration;
DROP TRIGGER launch_actions_updated_configuration;
DROP TRIGGER launch_actions_inserted_configuration;
DROP TRIGGER launch_templates_deleted_configuration;
DROP TRIGGER launch_templates_updated_configuration;
DROP TRIGGER launch_templates_inserted_configuration;
DROP TRIGGER replication_templates_deleted_configuration;
DROP TRIGGER replication_templates_updated_configuration;
DROP TRIGGER replication_templates_inserted_configuration;
DROP TRIGGER accounts_deleted_configuration;
DROP TRIGGER accounts_updated_configuration;
DROP TRIGGER accounts_inserted_configuration;
DROP TABLE configuration_generation;
