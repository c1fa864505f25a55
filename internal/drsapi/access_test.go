package drsapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/policy"
)

// Whoever adds an operation says what a caller must be allowed to do for it.
func TestEveryOperationStatesItsAccess(t *testing.T) {
	s := newSite(t)
	for _, op := range s.api.operations {
		if !op.access.stated {
			t.Errorf("%s does not state what it needs: give its operation an access (see access.go)", op.name)
		}
		for _, target := range op.access.targets {
			first, _, _ := strings.Cut(target.path, ".")
			if op.input.Properties[first] == nil {
				t.Errorf("%s: its input has no member %s", op.name, target.path)
			}
		}
		if op.access.creates != "" && op.input.Properties["tags"] == nil {
			t.Errorf("%s creates a %s, but its input has no tags", op.name, op.access.creates)
		}
	}
}

// policies are the documents attached to each user.
type policies map[string][]string

func (p policies) PoliciesOf(_ context.Context, who iam.Principal) ([]iam.NamedPolicy, error) {
	var out []iam.NamedPolicy
	for n, text := range p[who.Name] {
		d, err := policy.Parse(text)
		if err != nil {
			return nil, err
		}
		out = append(out, iam.NamedPolicy{ARN: fmt.Sprintf("arn:aws:iam::%s:policy/p%d", who.Account.ID, n), Document: d})
	}
	return out, nil
}

// user makes every key of the account home sign as one user with these policies.
func (s *site) user(name string, texts ...string) {
	s.t.Helper()
	key := iam.NewKeyOf(iam.Principal{Kind: iam.User, Account: home, Name: name, ID: "AIDA" + strings.ToUpper(name)})
	s.keys[home] = key
	s.api.Verifier = &iam.Verifier{Service: "drs", Region: home.Region, Keys: iam.NewKeyring(key, s.keys[other])}
	s.api.Access = &iam.Guard{Policies: policies{name: texts}}
}

func allowing(actions, resources string, condition ...string) string {
	more := ""
	if len(condition) > 0 {
		more = `,"Condition":` + condition[0]
	}
	return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":` + actions + `,"Resource":` + resources + more + `}}`
}

// refused checks that a reply names action and resource as AWS does.
func refused(t *testing.T, got reply, action, resource string) {
	t.Helper()
	if code := got.code(t); got.status != http.StatusForbidden || code != "AccessDeniedException" {
		t.Fatalf("%d %s %s, want 403 AccessDeniedException", got.status, code, got.body)
	}
	message := fmt.Sprint(got.object(t)["message"])
	if want := "is not authorized to perform: " + action + " on resource: " + resource + " "; !strings.Contains(message, want) {
		t.Errorf("message %q does not tell %q", message, want)
	}
}

func (s *site) post(operation, body string) reply { return s.send(home, "POST", "/"+operation, body) }

func served(t *testing.T, got reply) {
	t.Helper()
	if got.status >= 300 {
		t.Errorf("%d %s, want it served", got.status, got.body)
	}
}

func TestAccess(t *testing.T) {
	s := newSite(t)
	red, blue := s.addServer(home, "red1"), s.addServer(home, "blue2")
	tag(t, s, red.ARN(), drs.Tags{"team": "red"})
	recovery := func(servers ...drs.SourceServer) string {
		var list []string
		for _, server := range servers {
			list = append(list, fmt.Sprintf(`{"sourceServerID":%q}`, server.ID))
		}
		return `{"sourceServers":[` + strings.Join(list, ",") + `]}`
	}

	s.user("nobody")
	refused(t, s.post("DescribeSourceServers", "{}"), "drs:DescribeSourceServers", "*")
	refused(t, s.post("GetLaunchConfiguration", `{"sourceServerID":"`+string(red.ID)+`"}`), "drs:GetLaunchConfiguration", red.ARN())

	// What is wrong with a request is told only to those who may make it.
	refused(t, s.post("GetLaunchConfiguration", `{"sourceServerID":"x"}`), "drs:GetLaunchConfiguration", "*")

	s.user("one", allowing(`"drs:*"`, `"`+red.ARN()+`"`))
	served(t, s.post("GetLaunchConfiguration", `{"sourceServerID":"`+string(red.ID)+`"}`))
	if got := s.post("GetLaunchConfiguration", `{"sourceServerID":"x"}`); got.code(t) != "ValidationException" {
		t.Errorf("%s, want ValidationException", got.body)
	}
	refused(t, s.post("DescribeSourceServers", "{}"), "drs:DescribeSourceServers", "*") // it knows no resources
	served(t, s.post("StartRecovery", recovery(red)))
	refused(t, s.post("StartRecovery", recovery(red, blue)), "drs:StartRecovery", blue.ARN())
	served(t, s.send(home, "GET", "/tags/"+escape(red.ARN()), ""))
	refused(t, s.send(home, "GET", "/tags/"+escape(blue.ARN()), ""), "drs:ListTagsForResource", blue.ARN())

	s.user("tagged", allowing(`["drs:StartRecovery","drs:Get*"]`, `"*"`, `{"StringEquals":{"aws:ResourceTag/Team":"red"}}`))
	served(t, s.post("StartRecovery", recovery(red)))
	refused(t, s.post("StartRecovery", recovery(blue)), "drs:StartRecovery", blue.ARN())
	refused(t, s.post("GetLaunchConfiguration", `{"sourceServerID":"s-00000000000000000"}`), "drs:GetLaunchConfiguration", home.ARN(drs.TypeSourceServer, "s-00000000000000000"))

	denial := `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"drs:StartRecovery","Resource":"` + blue.ARN() + `"}}`
	s.user("all", allowing(`"*"`, `"*"`), denial)
	served(t, s.post("StartRecovery", recovery(red)))
	got := s.post("StartRecovery", recovery(blue))
	refused(t, got, "drs:StartRecovery", blue.ARN())
	if !strings.Contains(string(got.body), "with an explicit deny in an identity-based policy: arn:aws:iam::111122223333:policy/p1") {
		t.Errorf("%s does not name the policy that denies", got.body)
	}

	// Tags at creation need drs:TagResource, for which drs:CreateAction tells why.
	tagged := strings.TrimSuffix(recovery(red), "}") + `,"tags":{"cost":"7"}}`
	s.user("starter", allowing(`"drs:StartRecovery"`, `"*"`))
	served(t, s.post("StartRecovery", recovery(red)))
	refused(t, s.post("StartRecovery", tagged), "drs:TagResource", home.ARN(drs.TypeJob, "*"))
	s.user("tagger", allowing(`"drs:StartRecovery"`, `"*"`),
		allowing(`"drs:TagResource"`, `"arn:aws:drs:*:*:job/*"`, `{"StringEquals":{"drs:CreateAction":"StartRecovery"}}`))
	served(t, s.post("StartRecovery", tagged))
	refused(t, s.send(home, "POST", "/tags/"+escape(red.ARN()), `{"tags":{"cost":"7"}}`), "drs:TagResource", red.ARN())
	s.user("keys", allowing(`["drs:TagResource","drs:UntagResource"]`, `"*"`, `{"ForAllValues:StringEquals":{"aws:TagKeys":["cost"]}}`))
	served(t, s.send(home, "POST", "/tags/"+escape(red.ARN()), `{"tags":{"cost":"7"}}`))
	refused(t, s.send(home, "POST", "/tags/"+escape(red.ARN()), `{"tags":{"cost":"7","team":"blue"}}`), "drs:TagResource", red.ARN())
	served(t, s.send(home, "DELETE", "/tags/"+escape(red.ARN())+"?tagKeys=cost", ""))
	refused(t, s.send(home, "DELETE", "/tags/"+escape(red.ARN())+"?tagKeys=team", ""), "drs:UntagResource", red.ARN())

	// Recovery instances are known by the machine that they are, too.
	s.user("one instance", allowing(`"drs:GetFailbackReplicationConfiguration"`, `"*"`,
		`{"ArnEquals":{"drs:EC2InstanceARN":"arn:aws:ec2:`+home.Region+`:`+home.ID+`:instance/i-0123456789abcdef0"}}`))
	if got := s.post("GetFailbackReplicationConfiguration", `{"recoveryInstanceID":"i-0123456789abcdef0"}`); got.code(t) != "ResourceNotFoundException" {
		t.Errorf("%s, want to learn that it is not there", got.body)
	}
	refused(t, s.post("GetFailbackReplicationConfiguration", `{"recoveryInstanceID":"i-0123456789abcdef1"}`),
		"drs:GetFailbackReplicationConfiguration", home.ARN(drs.TypeRecoveryInstance, "i-0123456789abcdef1"))

	// Steps of plans are decided on by their plan.
	plan := home.ARN(drs.TypeRecoveryPlan, "plan-0123456789abcdef0")
	s.user("planner", allowing(`"drs:GetRecoveryPlanStep"`, `"`+plan+`"`))
	if got := s.post("GetRecoveryPlanStep", `{"recoveryPlanStepArn":"`+plan+`/step/step-0123456789abcdef0"}`); got.status == http.StatusForbidden {
		t.Errorf("a step of an allowed plan: %s", got.body)
	}
	refused(t, s.post("GetRecoveryPlanStep", `{"recoveryPlanStepArn":"`+plan+`1/step/step-0123456789abcdef0"}`), "drs:GetRecoveryPlanStep", plan+"1")

	s.user("here", allowing(`"drs:DescribeJobs"`, `"*"`, `{"IpAddress":{"aws:SourceIp":"127.0.0.0/8"},"Bool":{"aws:SecureTransport":"true"}}`))
	served(t, s.post("DescribeJobs", "{}"))
	s.user("there", allowing(`"drs:DescribeJobs"`, `"*"`, `{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`))
	refused(t, s.post("DescribeJobs", "{}"), "drs:DescribeJobs", "*")
}

// Authorization comes before the question whether the account is initialized.
func TestAccessBeforeInitialization(t *testing.T) {
	s := newSite(t)
	home := home
	home.Region = "eu-west-2" // where nothing is initialized
	key := iam.NewKeyOf(iam.Principal{Kind: iam.User, Account: home, Name: "x"})
	s.keys[home] = key
	s.api.Verifier = &iam.Verifier{Service: "drs", Region: home.Region, Keys: iam.NewKeyring(key)}
	s.api.Access = &iam.Guard{Policies: policies{}}
	refused(t, s.send(home, "POST", "/DescribeJobs", "{}"), "drs:DescribeJobs", "*")
	s.api.Access = &iam.Guard{Policies: policies{"x": {allowing(`"drs:*"`, `"*"`)}}}
	if got := s.send(home, "POST", "/DescribeJobs", `{"maxResults":0}`); got.code(t) != "UninitializedAccountException" {
		t.Errorf("%s, want UninitializedAccountException", got.body)
	}
}

// Every request is recorded, with who made it and what became of it.
func TestRecord(t *testing.T) {
	s := newSite(t)
	var calls []Call
	s.api.Record = func(c Call) { calls = append(calls, c) }
	last := func() Call { t.Helper(); return calls[len(calls)-1] }
	s.post("DescribeRecoveryInstances", `{"maxResults":5}`)
	if c := last(); c.Operation != "DescribeRecoveryInstances" || c.Key.ID != s.keys[home].ID || c.Status != 200 || c.Code != "" ||
		fmt.Sprint(c.Input["maxResults"]) != "5" || !json.Valid(c.Output) || time.Since(c.Began) > time.Hour || c.ID == "" {
		t.Errorf("recorded %+v", c)
	}
	s.post("DescribeJobs", `{"maxResults":-5}`)
	if c := last(); c.Code != "ValidationException" || c.Status != 400 || c.Key.ID == "" {
		t.Errorf("recorded %+v", c)
	}
	r, err := http.NewRequest("POST", s.server.URL+"/DescribeJobs", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	s.do(r)
	if c := last(); c.Code != "MissingAuthenticationTokenException" || c.Status != 403 || c.Key.ID != "" {
		t.Errorf("recorded %+v", c)
	}
	s.recovery.panic = "x"
	s.post("StartRecovery", `{"sourceServers":[{"sourceServerID":"s-00000000000000000"}]}`)
	if c := last(); c.Code != "InternalServerException" || c.Operation != "StartRecovery" {
		t.Errorf("recorded %+v", c)
	}
	if len(calls) != 4 {
		t.Errorf("%d calls recorded, want 4", len(calls))
	}
}

func tag(t *testing.T, s *site, arn string, tags drs.Tags) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"tags": tags})
	if err != nil {
		t.Fatal(err)
	}
	served(t, s.send(home, "POST", "/tags/"+escape(arn), string(text)))
}
