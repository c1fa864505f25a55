package policy

import "strings"

// Managed is a policy that every account has, under the name and ARN that it has
// on AWS. Where AWS grants what other services do for recovery instances there,
// the lifeboat: actions that do it here stand instead.
type Managed struct {
	Name        string
	Path        string // within the ARN
	Description string
	Document    *Document
}

// ARN names the policy, in every account alike.
func (m Managed) ARN() string { return managedPrefix + strings.TrimPrefix(m.Path, "/") + m.Name }

const managedPrefix = "arn:aws:iam::aws:policy/"

// ManagedPolicies lists them, by name.
func ManagedPolicies() []Managed { return managed }

var managed = []Managed{
	allow("AWSElasticDisasterRecoveryAgentInstallationPolicy", "May install agents.",
		statementOf("*", "lifeboat:CreateInstallToken", "drs:GetAgentInstallationAssetsForDrs", "drs:SendClientLogsForDrs",
			"drs:SendClientMetricsForDrs", "drs:CreateSourceServerForDrs", "drs:CreateRecoveryInstanceForDrs",
			"drs:DescribeRecoveryInstances", "drs:CreateSourceNetwork"),
		taggingOn("source-server", "CreateSourceServerForDrs", "CreateRecoveryInstanceForDrs"),
		taggingOn("source-network", "CreateSourceNetwork"),
		statementOf("arn:aws:drs:*:*:source-server/*", "drs:IssueAgentCertificateForDrs")),
	allow("AWSElasticDisasterRecoveryConsoleFullAccess", "May do everything with disaster recovery.", fullAccess...),
	allow("AWSElasticDisasterRecoveryConsoleFullAccess_v2", "May do everything with disaster recovery.", fullAccess...),
	allow("AWSElasticDisasterRecoveryReadOnlyAccess", "May look at disaster recovery, and change nothing.",
		statementOf("*", "drs:DescribeJobLogItems", "drs:DescribeJobs", "drs:DescribeRecoveryInstances", "drs:DescribeRecoverySnapshots",
			"drs:DescribeReplicationConfigurationTemplates", "drs:DescribeSourceServers", "drs:GetFailbackReplicationConfiguration",
			"drs:GetLaunchConfiguration", "drs:GetReplicationConfiguration", "drs:ListExtensibleSourceServers", "drs:ListStagingAccounts",
			"drs:ListTagsForResource", "drs:ListLaunchActions", "drs:GetRecoveryPlan", "drs:GetRecoveryPlanStep", "drs:GetRecoveryPlanExecution",
			"drs:GetRecoveryPlanExecutionStep", "drs:ListRecoveryPlans", "drs:ListRecoveryPlanSteps", "drs:ListRecoveryPlanExecutions",
			"drs:ListRecoveryPlanExecutionSteps")),
	allow("AdministratorAccess", "May do everything.", statementOf("*", "*")),
	allow("IAMFullAccess", "May manage users, roles, policies and access keys.", statementOf("*", "iam:*")),
}

var fullAccess = []string{
	statementOf("*", "drs:*", "lifeboat:CreateInstallToken", "lifeboat:ExportDisk", "lifeboat:StartRecoveryInstance",
		"lifeboat:StopRecoveryInstance", "lifeboat:GetRecoveryInstanceConsole"),
}

func allow(name, description string, statements ...string) Managed {
	text := `{"Version":"` + version2012 + `","Statement":[` + strings.Join(statements, ",") + `]}`
	d, err := Parse(text)
	if err != nil {
		panic(err) // the table above is wrong
	}
	return Managed{Name: name, Path: "/", Description: description, Document: d}
}

func statementOf(resource string, actions ...string) string {
	return `{"Effect":"Allow","Action":[` + quoted(actions) + `],"Resource":` + Quote(resource) + `}`
}

// taggingOn allows tags on what is being created.
func taggingOn(resource string, creators ...string) string {
	return `{"Effect":"Allow","Action":"drs:TagResource","Resource":` + Quote("arn:aws:drs:*:*:"+resource+"/*") +
		`,"Condition":{"StringEquals":{"drs:CreateAction":[` + quoted(creators) + `]}}}`
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = Quote(s)
	}
	return strings.Join(out, ",")
}
