package drsapi

import (
	"net/http"

	"lifeboat/internal/drs"
)

// registerConfigurations lists the operations on configurations, their templates
// and launch actions.
func (a *API) registerConfigurations() {
	const server, replication, launch = "sourceServerID", "replicationConfigurationTemplateID", "launchConfigurationTemplateID"

	add(a, operation{name: "UpdateReplicationConfiguration", access: on(drs.TypeSourceServer, server)}, caller.updateReplicationConfiguration)
	add(a, operation{name: "CreateReplicationConfigurationTemplate", status: http.StatusCreated,
		access: onAnything().creating(drs.TypeReplicationTemplate)}, caller.createReplicationConfigurationTemplate)
	add(a, operation{name: "DescribeReplicationConfigurationTemplates", access: onAnything()}, caller.describeReplicationConfigurationTemplates)
	add(a, operation{name: "UpdateReplicationConfigurationTemplate",
		access: on(drs.TypeReplicationTemplate, replication)}, caller.updateReplicationConfigurationTemplate)
	add(a, operation{name: "DeleteReplicationConfigurationTemplate", status: http.StatusNoContent,
		access: on(drs.TypeReplicationTemplate, replication)}, caller.deleteReplicationConfigurationTemplate)

	add(a, operation{name: "CreateLaunchConfigurationTemplate", status: http.StatusCreated,
		access: onAnything().creating(drs.TypeLaunchTemplate)}, caller.createLaunchConfigurationTemplate)
	add(a, operation{name: "DescribeLaunchConfigurationTemplates", access: onAnything()}, caller.describeLaunchConfigurationTemplates)
	add(a, operation{name: "UpdateLaunchConfigurationTemplate", access: on(drs.TypeLaunchTemplate, launch)}, caller.updateLaunchConfigurationTemplate)
	add(a, operation{name: "DeleteLaunchConfigurationTemplate", status: http.StatusNoContent,
		access: on(drs.TypeLaunchTemplate, launch)}, caller.deleteLaunchConfigurationTemplate)

	// Their resource is a source server or a template: its ID tells which.
	add(a, operation{name: "PutLaunchAction", access: onARN("resourceId")}, caller.putLaunchAction)
	add(a, operation{name: "ListLaunchActions", access: onARN("resourceId")}, caller.listLaunchActions)
	add(a, operation{name: "DeleteLaunchAction", status: http.StatusNoContent, access: onARN("resourceId")}, caller.deleteLaunchAction)
}

// registerProtection lists the operations that change what becomes of servers,
// instances and jobs.
func (a *API) registerProtection() {
	const server, instance = "sourceServerID", "recoveryInstanceID"

	add(a, operation{name: "StopReplication", access: on(drs.TypeSourceServer, server)}, caller.stopReplication)
	add(a, operation{name: "StartReplication", access: on(drs.TypeSourceServer, server)}, caller.startReplication)
	add(a, operation{name: "RetryDataReplication", access: on(drs.TypeSourceServer, server)}, caller.retryDataReplication)
	add(a, operation{name: "DisconnectSourceServer", access: on(drs.TypeSourceServer, server)}, caller.disconnectSourceServer)
	add(a, operation{name: "DeleteSourceServer", status: http.StatusNoContent, access: on(drs.TypeSourceServer, server)}, caller.deleteSourceServer)

	add(a, operation{name: "CreateExtendedSourceServer", status: http.StatusCreated,
		access: onARN("sourceServerArn").creating(drs.TypeSourceServer)}, caller.createExtendedSourceServer)
	add(a, operation{name: "ListExtensibleSourceServers", access: onAnything()}, caller.listExtensibleSourceServers)
	add(a, operation{name: "ListStagingAccounts", route: route{http.MethodGet, "/ListStagingAccounts"}, access: onAnything()}, caller.listStagingAccounts)

	add(a, operation{name: "DeleteJob", status: http.StatusNoContent, access: on(drs.TypeJob, "jobID")}, caller.deleteJob)

	add(a, operation{name: "DisconnectRecoveryInstance", access: on(drs.TypeRecoveryInstance, instance)}, caller.disconnectRecoveryInstance)
	add(a, operation{name: "DeleteRecoveryInstance", access: on(drs.TypeRecoveryInstance, instance)}, caller.deleteRecoveryInstance)
	add(a, operation{name: "GetFailbackReplicationConfiguration", access: on(drs.TypeRecoveryInstance, instance)}, caller.getFailbackReplicationConfiguration)
	add(a, operation{name: "UpdateFailbackReplicationConfiguration", access: on(drs.TypeRecoveryInstance, instance)}, caller.updateFailbackReplicationConfiguration)
	add(a, operation{name: "ReverseReplication", access: on(drs.TypeRecoveryInstance, instance)}, caller.reverseReplication)
	add(a, operation{name: "StartFailbackLaunch", access: on(drs.TypeRecoveryInstance, "recoveryInstanceIDs").creating(drs.TypeJob)}, caller.startFailbackLaunch)
	add(a, operation{name: "StopFailback", access: on(drs.TypeRecoveryInstance, instance)}, caller.stopFailback)
}
