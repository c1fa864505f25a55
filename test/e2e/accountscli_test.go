package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cli is Debian's AWS CLI in somebody's hands.
type cli struct {
	t        *testing.T
	endpoint string
	env      map[string]string
}

func (in *installation) cli(t *testing.T) cli {
	t.Helper()
	if _, err := os.Stat(awsCLI); err != nil {
		t.Fatalf("%v: make test installs it (apt-get install awscli)", err)
	}
	env := maps.Clone(in.env)
	env["HOME"], env["AWS_MAX_ATTEMPTS"], env["AWS_EC2_METADATA_DISABLED"] = t.TempDir(), "1", "true"
	return cli{t, in.env["AWS_ENDPOINT_URL"], env}
}

// with is the same with other credentials, as AWS prints them.
func (c cli) with(key map[string]any) cli {
	c.env = maps.Clone(c.env)
	delete(c.env, "AWS_SESSION_TOKEN")
	for name, member := range map[string]string{"AWS_ACCESS_KEY_ID": "AccessKeyId", "AWS_SECRET_ACCESS_KEY": "SecretAccessKey", "AWS_SESSION_TOKEN": "SessionToken"} {
		if value, ok := key[member].(string); ok {
			c.env[name] = value
		}
	}
	return c
}

func (c cli) run(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	return execute(c.t, exec.CommandContext(c.t.Context(), awsCLI, append([]string{"--endpoint-url", c.endpoint, "--output", "json"}, args...)...), c.env)
}

// ask runs one operation and returns what it printed.
func (c cli) ask(args ...string) map[string]any {
	c.t.Helper()
	stdout, stderr, code := c.run(args...)
	if code != 0 {
		c.t.Fatalf("aws %s: exit %d: %s", strings.Join(args, " "), code, stderr)
	}
	out := map[string]any{}
	if strings.TrimSpace(stdout) != "" {
		if err := json.Unmarshal([]byte(stdout), &out); err != nil {
			c.t.Fatalf("aws %v printed %s: %v", args, stdout, err)
		}
	}
	return out
}

// refused runs an operation that must be refused with these words.
func (c cli) refused(words string, args ...string) {
	c.t.Helper()
	if _, stderr, code := c.run(args...); code == 0 || !strings.Contains(stderr, words) {
		c.t.Errorf("aws %s: exit %d: %s, want %s", strings.Join(args, " "), code, stderr, words)
	}
}

// await asks until the answer, or part of it, is what is waited for.
func (c cli) await(what, want string, look func() any) {
	c.t.Helper()
	eventually(c.t, what, func() (string, bool) {
		got, _ := look().(string)
		return got, got == want
	})
}

func inner(reply map[string]any, names ...string) map[string]any {
	for _, name := range names {
		reply, _ = reply[name].(map[string]any)
	}
	return reply
}

// A staging account lets another one recover its servers, an administrator makes a
// group of operators, one of them drills by a plan: all with aws iam, aws sts and
// aws drs as Debian ships them.
func TestAccountsWithTheAWSCLI(t *testing.T) {
	in, server := ready(t)
	staging := in.cli(t)
	stagingAccount := staging.ask("sts", "get-caller-identity")["Account"].(string)

	const target = "444455556666"
	out, errs, code := lifeboat(t, nil, "iam", "account", "create", "target", "--number", target, "--data", in.dir)
	if code != 0 {
		t.Fatal(errs)
	}
	key := map[string]any{}
	for _, m := range exportLine.FindAllStringSubmatch(out, -1) {
		key[map[string]string{"AWS_ACCESS_KEY_ID": "AccessKeyId", "AWS_SECRET_ACCESS_KEY": "SecretAccessKey"}[m[1]]] = m[2]
	}
	root := staging.with(key)
	if who := root.ask("sts", "get-caller-identity"); who["Arn"] != "arn:aws:iam::"+target+":root" {
		t.Fatalf("the new account's key is %v's", who)
	}
	root.refused("UninitializedAccountException", "drs", "describe-source-servers")
	root.ask("drs", "initialize-service")

	// Extended servers.
	root.refused("AccessDenied", "drs", "list-extensible-source-servers", "--staging-account-id", stagingAccount)
	staging.ask("iam", "create-role", "--role-name", "DRSStagingAccountRole_"+target, "--assume-role-policy-document",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::`+target+`:root"},"Action":"sts:AssumeRole"}]}`)
	origin := first(t, root.ask("drs", "list-extensible-source-servers", "--staging-account-id", stagingAccount))["arn"].(string)
	extended := inner(root.ask("drs", "create-extended-source-server", "--source-server-arn", origin), "sourceServer")
	if inner(extended, "stagingArea")["status"] != "EXTENDED" || extended["sourceServerID"] == server {
		t.Errorf("extended: %v", extended)
	}
	if accounts := root.ask("drs", "list-staging-accounts")["accounts"].([]any); len(accounts) != 1 {
		t.Errorf("staging accounts: %v", accounts)
	}

	// An operator, who may what the group may.
	root.ask("iam", "create-group", "--group-name", "operators")
	root.ask("iam", "attach-group-policy", "--group-name", "operators", "--policy-arn", "arn:aws:iam::aws:policy/AWSElasticDisasterRecoveryConsoleFullAccess_v2")
	root.ask("iam", "create-user", "--user-name", "ann")
	ann := root.with(inner(root.ask("iam", "create-access-key", "--user-name", "ann"), "AccessKey"))
	ann.refused("AccessDeniedException", "drs", "describe-source-servers")
	root.ask("iam", "add-user-to-group", "--group-name", "operators", "--user-name", "ann")
	if seen := first(t, ann.ask("drs", "describe-source-servers")); seen["sourceServerID"] != extended["sourceServerID"] {
		t.Errorf("the operator sees %v", seen)
	}
	ann.refused("AccessDenied", "iam", "list-users")
	root.ask("iam", "put-user-policy", "--user-name", "ann", "--policy-name", "own", "--policy-document",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:List*","Resource":"*"},{"Effect":"Deny","Action":"drs:DeleteSourceServer","Resource":"*"}]}`)
	if users := ann.ask("iam", "list-users")["Users"].([]any); len(users) != 1 {
		t.Errorf("users %v", users)
	}
	ann.refused("explicit deny", "drs", "delete-source-server", "--source-server-id", extended["sourceServerID"].(string))

	// A role, for a while.
	root.ask("iam", "create-role", "--role-name", "watcher", "--assume-role-policy-document",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::`+target+`:user/ann"},"Action":"sts:AssumeRole"}]}`)
	root.ask("iam", "put-role-policy", "--role-name", "watcher", "--policy-name", "own", "--policy-document",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"drs:DescribeJobs","Resource":"*"}]}`)
	watcher := ann.with(inner(ann.ask("sts", "assume-role", "--role-arn", "arn:aws:iam::"+target+":role/watcher", "--role-session-name", "look"), "Credentials"))
	watcher.ask("drs", "describe-jobs")
	watcher.refused("AccessDeniedException", "drs", "describe-source-servers")

	// A plan, whose operations this CLI learns from a model as its users would teach it.
	model, err := os.ReadFile("clients/drsplans-service-2.json")
	if err != nil {
		t.Fatal(err)
	}
	models := filepath.Join(ann.env["HOME"], ".aws", "models", "drsplans", "2020-02-26")
	if err := os.MkdirAll(models, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(models, "service-2.json"), model, 0o600); err != nil {
		t.Fatal(err)
	}
	plan := inner(ann.ask("drsplans", "create-recovery-plan", "--name", "shop", "--description", "in order"), "recoveryPlan")["recoveryPlanArn"].(string)
	ann.ask("drsplans", "create-recovery-plan-step", "--recovery-plan-arn", plan, "--step-name", "all", "--configuration",
		`{"serverStepConfiguration":{"servers":[{"serverArn":"`+extended["arn"].(string)+`"}]}}`)
	if got := inner(ann.ask("drsplans", "get-recovery-plan", "--recovery-plan-arn", plan), "recoveryPlan"); got["status"] != "ACTIVE" || got["description"] != "in order" {
		t.Errorf("plan: %v", got)
	}
	run := inner(ann.ask("drsplans", "start-recovery-plan-execution", "--recovery-plan-arn", plan, "--mode", "DRILL"), "recoveryPlanExecution")["recoveryPlanExecutionArn"].(string)
	ann.await("the plan's execution", "COMPLETED", func() any {
		return inner(ann.ask("drsplans", "get-recovery-plan-execution", "--recovery-plan-execution-arn", run), "recoveryPlanExecution")["status"]
	})
	instance := first(t, ann.ask("drs", "describe-recovery-instances"))
	if instance["isDrill"] != true || instance["sourceServerID"] != extended["sourceServerID"] {
		t.Errorf("launched: %v", instance)
	}
	job := inner(ann.ask("drs", "terminate-recovery-instances", "--recovery-instance-ids", instance["recoveryInstanceID"].(string)), "job")["jobID"].(string)
	ann.await("the terminate job", "COMPLETED", func() any {
		return first(t, ann.ask("drs", "describe-jobs", "--filters", "jobIDs="+job))["status"]
	})
	ann.ask("drsplans", "delete-recovery-plan", "--recovery-plan-arn", plan)

	// The staging account takes its word back.
	staging.ask("iam", "delete-role", "--role-name", "DRSStagingAccountRole_"+target)
	if area := inner(first(t, ann.ask("drs", "describe-source-servers")), "stagingArea"); area["status"] != "EXTENSION_ERROR" {
		t.Errorf("after the role is gone: %v", area)
	}
	ann.refused("ConflictException", "drs", "start-recovery", "--source-servers", "sourceServerID="+extended["sourceServerID"].(string))
	root.ask("drs", "delete-source-server", "--source-server-id", extended["sourceServerID"].(string))
}
