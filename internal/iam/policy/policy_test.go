package policy

import (
	"errors"
	"strings"
	"testing"
)

const (
	server  = "arn:aws:drs:us-east-1:111122223333:source-server/s-0123456789abcdef0"
	another = "arn:aws:drs:us-east-1:111122223333:source-server/s-ffffffffffffffff0"
	job     = "arn:aws:drs:us-east-1:111122223333:job/drsjob-0123456789abcdef0"
)

func mustParse(t testing.TB, text string) *Document {
	t.Helper()
	d, err := Parse(text)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return d
}

func one(statement string) string { return `{"Version":"2012-10-17","Statement":` + statement + `}` }

func TestEvaluate(t *testing.T) {
	const allowAll = `{"Effect":"Allow","Action":"*","Resource":"*"}`
	for _, c := range []struct {
		name, policy, action, resource string
		want                           Decision
	}{
		{"all", one(allowAll), "drs:DescribeJobs", "*", Allowed},
		{"other action", one(`{"Effect":"Allow","Action":"drs:DescribeJobs","Resource":"*"}`), "drs:DeleteJob", "*", NoStatement},
		{"case of an action", one(`{"Effect":"Allow","Action":"DRS:describejobs","Resource":"*"}`), "drs:DescribeJobs", "*", Allowed},
		{"wildcards of an action", one(`{"Effect":"Allow","Action":"drs:Describe*Job?","Resource":"*"}`), "drs:DescribeJobs", "*", Allowed},
		{"deny wins, in any order", one(`[{"Effect":"Deny","Action":"drs:DeleteJob","Resource":"*"},` + allowAll + `]`), "drs:DeleteJob", job, ExplicitDeny},
		{"deny of another resource", one(`[` + allowAll + `,{"Effect":"Deny","Action":"*","Resource":"` + another + `"}]`), "drs:StartRecovery", server, Allowed},
		{"NotAction", one(`{"Effect":"Allow","NotAction":["drs:Delete*","iam:*"],"Resource":"*"}`), "drs:StartRecovery", server, Allowed},
		{"NotAction, named", one(`{"Effect":"Allow","NotAction":["drs:Delete*","iam:*"],"Resource":"*"}`), "drs:DeleteJob", job, NoStatement},
		{"NotResource", one(`{"Effect":"Allow","Action":"*","NotResource":"` + server + `"}`), "drs:StartRecovery", another, Allowed},
		{"NotResource, named", one(`{"Effect":"Allow","Action":"*","NotResource":"` + server + `"}`), "drs:StartRecovery", server, NoStatement},
		{"resource by wildcard", one(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:drs:*:*:source-server/*"}`), "drs:StartRecovery", server, Allowed},
		{"of another type", one(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:drs:*:*:source-server/*"}`), "drs:DeleteJob", job, NoStatement},
		{"a star stays in its segment", one(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:drs:*:source-server/*"}`), "drs:StartRecovery", server, NoStatement},
		{"short with a star", one(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:drs:*"}`), "drs:StartRecovery", server, Allowed},
		{"no resource-level permission", one(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:drs:*:*:*"}`), "drs:DescribeJobs", "*", NoStatement},
		{"another account", one(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:drs:*:444455556666:*"}`), "drs:StartRecovery", server, NoStatement},
		{"second statement", one(`[{"Effect":"Allow","Action":"drs:X","Resource":"*"},` + allowAll + `]`), "drs:StartRecovery", server, Allowed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := mustParse(t, c.policy).Evaluate(Request{Action: c.action, Resource: c.resource}); got != c.want {
				t.Errorf("decision %v, want %v", got, c.want)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	context := Context{}
	context.Set("aws:username", "ann")
	context.Set("aws:SourceIp", "10.1.2.3")
	context.Set("aws:CurrentTime", "2026-11-23T12:00:00Z")
	context.Set("aws:EpochTime", "1795435200")
	context.Set("aws:SecureTransport", "true")
	context.Set("aws:ResourceTag/Owner", "ann")
	context.Set("aws:RequestTag/level", "5")
	context.Set("aws:TagKeys", "level", "cost")
	context.Set("aws:PrincipalArn", "arn:aws:iam::111122223333:user/ann")
	context.Set("trick", "a*b")
	for condition, want := range map[string]bool{
		`{"StringEquals":{"aws:username":"ann"}}`:                                             true,
		`{"StringEquals":{"AWS:UserName":["bob","ann"]}}`:                                     true,
		`{"StringEquals":{"aws:username":"Ann"}}`:                                             false,
		`{"StringEqualsIgnoreCase":{"aws:username":"ANN"}}`:                                   true,
		`{"StringNotEquals":{"aws:username":["bob","ann"]}}`:                                  false,
		`{"StringNotEquals":{"aws:username":"bob"}}`:                                          true,
		`{"StringEquals":{"aws:username":"a*"}}`:                                              false,
		`{"StringLike":{"aws:username":"a*"}}`:                                                true,
		`{"StringLike":{"aws:username":"a?"}}`:                                                false,
		`{"StringNotLike":{"aws:username":"b*"}}`:                                             true,
		`{"StringEquals":{"aws:username":"ann","aws:absent":"x"}}`:                            false,
		`{"StringEqualsIfExists":{"aws:username":"ann","aws:absent":"x"}}`:                    true,
		`{"StringNotEquals":{"aws:absent":"x"}}`:                                              true,
		`{"StringEquals":{"aws:ResourceTag/owner":"${aws:username}"}}`:                        true,
		`{"StringLike":{"aws:ResourceTag/owner":"${aws:username}*"}}`:                         true,
		`{"StringEquals":{"aws:ResourceTag/owner":"${aws:absent}"}}`:                          false,
		`{"StringEquals":{"aws:ResourceTag/owner":"${aws:absent, 'ann'}"}}`:                   true,
		`{"StringLike":{"aws:username":"${trick}"}}`:                                          false, // no wildcard comes from a value
		`{"StringEquals":{"trick":"a${*}b"}}`:                                                 true,
		`{"StringLike":{"trick":"a${*}b"}}`:                                                   true,
		`{"StringLike":{"aws:username":"a${*}n"}}`:                                            false,
		`{"NumericLessThan":{"aws:RequestTag/level":"10"}}`:                                   true,
		`{"NumericGreaterThanEquals":{"aws:RequestTag/level":5}}`:                             true,
		`{"NumericEquals":{"aws:username":"5"}}`:                                              false,
		`{"NumericNotEquals":{"aws:RequestTag/level":6}}`:                                     true,
		`{"DateGreaterThan":{"aws:CurrentTime":"2026-11-23T11:59:59Z"}}`:                      true,
		`{"DateLessThan":{"aws:CurrentTime":"2026-11-23"}}`:                                   false,
		`{"DateLessThanEquals":{"aws:EpochTime":"2026-11-23T12:00:00Z"}}`:                     true,
		`{"Bool":{"aws:SecureTransport":true}}`:                                               true,
		`{"Bool":{"aws:SecureTransport":"False"}}`:                                            false,
		`{"BoolIfExists":{"aws:MultiFactorAuthPresent":"true"}}`:                              true,
		`{"Bool":{"aws:MultiFactorAuthPresent":"true"}}`:                                      false,
		`{"IpAddress":{"aws:SourceIp":["192.168.0.0/16","10.0.0.0/8"]}}`:                      true,
		`{"IpAddress":{"aws:SourceIp":"10.1.2.3"}}`:                                           true,
		`{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`:                                      false,
		`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/*"}}`:                            true,
		`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*"}}`:                                   false,
		`{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::111122223333:user/${aws:username}"}}`: true,
		`{"ArnNotEquals":{"aws:PrincipalArn":"arn:aws:iam::111122223333:user/bob"}}`:          true,
		`{"Null":{"aws:absent":"true"}}`:                                                      true,
		`{"Null":{"aws:username":"true"}}`:                                                    false,
		`{"Null":{"aws:username":false}}`:                                                     true,
		`{"ForAllValues:StringEquals":{"aws:TagKeys":["level","cost","x"]}}`:                  true,
		`{"ForAllValues:StringEquals":{"aws:TagKeys":["level"]}}`:                             false,
		`{"ForAllValues:StringEquals":{"aws:absent":["level"]}}`:                              true,
		`{"ForAnyValue:StringEquals":{"aws:TagKeys":["cost"]}}`:                               true,
		`{"ForAnyValue:StringEquals":{"aws:absent":["cost"]}}`:                                false,
		`{"ForAnyValue:StringNotEquals":{"aws:TagKeys":["cost"]}}`:                            true,
		`{"ForAllValues:StringNotLike":{"aws:TagKeys":["co*"]}}`:                              false,
		`{"StringNotEquals":{"aws:TagKeys":["cost"]}}`:                                        false,
		`{"StringEquals":{"aws:username":"ann"},"Bool":{"aws:SecureTransport":"false"}}`:      false,
	} {
		d := mustParse(t, one(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+condition+`}`))
		if got := d.Evaluate(Request{Action: "drs:X", Resource: "*", Context: context}) == Allowed; got != want {
			t.Errorf("%s holds: %v, want %v", condition, got, want)
		}
	}
	// The older version knows no variables.
	old := `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:username":"${aws:username}"}}}}`
	if mustParse(t, old).Evaluate(Request{Action: "drs:X", Resource: "*", Context: context}) == Allowed {
		t.Error("version 2008-10-17 has policy variables")
	}
}

// Variables of resources stay within their segment and never act as wildcards.
func TestResourceVariables(t *testing.T) {
	d := mustParse(t, one(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:drs:*:*:source-server/${aws:SourceIdentity}"}`))
	for identity, want := range map[string]Decision{
		"s-0123456789abcdef0": Allowed, "*": NoStatement, "s-*": NoStatement, "": NoStatement,
	} {
		c := Context{}
		if identity != "" {
			c.Set("aws:SourceIdentity", identity)
		}
		if got := d.Evaluate(Request{Action: "drs:X", Resource: server, Context: c}); got != want {
			t.Errorf("source identity %q: %v, want %v", identity, got, want)
		}
	}
}

func TestMalformed(t *testing.T) {
	const good = `"Effect":"Allow","Action":"*","Resource":"*"`
	for _, c := range []struct{ text, place, reason string }{
		{``, "line 1, column 1", "not JSON"},
		{`{"Version":"2012-10-17","Statement":[{` + good + `}]`, "", "not JSON"},
		{`[]`, "", "want a JSON object"},
		{`{"Version":"2012-10-17"}`, "", "has no Statement"},
		{`{"Version":"2020-01-01","Statement":{` + good + `}}`, "Version", "2012-10-17"},
		{one(`[]`), "Statement", "want a statement"},
		{one(`{`+good+`}`) + `x`, "", "something follows"},
		{`{"Statement":{` + good + `},"Extra":1}`, "Extra", "no such element"},
		{one(`{` + good + `,"Effect":"Deny"}`), "Statement.Effect", "given twice"},
		{one(`[{` + good + `},{` + good + `,"Principals":"*"}]`), "Statement[1].Principals", "no such element"},
		{one(`{"Effect":"allow","Action":"*","Resource":"*"}`), "Statement.Effect", `"Allow" or "Deny"`},
		{one(`{"Action":"*","Resource":"*"}`), "Statement", "has no Effect"},
		{one(`{"Effect":"Allow","Resource":"*"}`), "Statement", "has no Action"},
		{one(`{"Effect":"Allow","Action":"*"}`), "Statement", "has no Resource"},
		{one(`{` + good + `,"NotAction":"drs:*"}`), "Statement.NotAction", "give one of the two"},
		{one(`{` + good + `,"Principal":"*"}`), "Statement.Principal", "has no principals"},
		{one(`{"Effect":"Allow","Action":["drs:*","StartRecovery"],"Resource":"*"}`), "Statement.Action[1]", "no action"},
		{one(`{"Effect":"Allow","Action":[],"Resource":"*"}`), "Statement.Action", "empty"},
		{one(`{"Effect":"Allow","Action":7,"Resource":"*"}`), "Statement.Action", "want a string"},
		{one(`{"Effect":"Allow","Action":"*","Resource":"s-0123456789abcdef0"}`), "Statement.Resource", "want * or an ARN"},
		{one(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:drs:us-east-1"}`), "Statement.Resource", "six segments"},
		{one(`{` + good + `,"Condition":{"StringSame":{"a":"b"}}}`), "Statement.Condition.StringSame", "no condition operator"},
		{one(`{` + good + `,"Condition":{"ForSome:StringLike":{"a":"b"}}}`), "Statement.Condition.ForSome:StringLike", "no set operator"},
		{one(`{` + good + `,"Condition":{"NullIfExists":{"a":"true"}}}`), "Statement.Condition.NullIfExists", "Null takes"},
		{one(`{` + good + `,"Condition":{"Bool":{"a":"yes"}}}`), "Statement.Condition.Bool.a", "no value"},
		{one(`{` + good + `,"Condition":{"IpAddress":{"a":["10.0.0.0/8","10.0.0.0/99"]}}}`), "Statement.Condition.IpAddress.a[1]", "no value"},
		{one(`{` + good + `,"Condition":{"StringLike":"x"}}`), "Statement.Condition.StringLike", "condition keys"},
		{one(`{` + good + `,"Sid":"a b"}`), "Statement.Sid", "letters and digits"},
		{one(`[{"Sid":"a",` + good + `},{"Sid":"a",` + good + `}]`), "Statement[1].Sid", "same Sid"},
		{"{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": {\n    \"Effect\": 1\n  }\n}", "Statement.Effect (line 4, column", `"Allow"`},
		{one(`{`+good+`}`) + strings.Repeat("x", MaxSize), "", "more than 6144"},
		{strings.Repeat(`{"Statement":`, 50), "", "nested too deeply"},
	} {
		_, err := Parse(c.text)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%.80s: %v, want a syntax error", c.text, err)
			continue
		}
		if !strings.Contains(err.Error(), c.reason) || !strings.Contains(err.Error(), "malformed policy at "+c.place) {
			t.Errorf("%.200s\n%v\nwant %q at %q", c.text, err, c.reason, c.place)
		}
	}
}

func TestTrust(t *testing.T) {
	trust := func(principal string, more ...string) string {
		return one(`{"Effect":"Allow","Action":"sts:AssumeRole","Principal":` + principal + strings.Join(more, "") + `}`)
	}
	const ann = "arn:aws:iam::111122223333:user/ann"
	for text, want := range map[string]Trust{
		trust(`{"AWS":"111122223333"}`):                   AccountTrusted,
		trust(`{"AWS":"arn:aws:iam::111122223333:root"}`): AccountTrusted,
		trust(`{"AWS":["444455556666","` + ann + `"]}`):   DirectlyTrusted,
		trust(`"*"`):                             DirectlyTrusted,
		trust(`{"AWS":"*"}`):                     DirectlyTrusted,
		trust(`{"AWS":"444455556666"}`):          NotTrusted,
		trust(`{"Service":"drs.amazonaws.com"}`): NotTrusted,
		trust(`{"AWS":"111122223333"}`, `,"Condition":{"StringEquals":{"sts:ExternalId":"7"}}`):                                                       NotTrusted,
		one(`[{"Effect":"Allow","Action":"sts:*","Principal":"*"},{"Effect":"Deny","Action":"sts:AssumeRole","Principal":{"AWS":"` + ann + `"}}]`):    NotTrusted,
		one(`[{"Effect":"Allow","Action":"sts:*","Principal":"*"},{"Effect":"Deny","Action":"sts:AssumeRole","NotPrincipal":{"AWS":"` + ann + `"}}]`): DirectlyTrusted,
		one(`{"Effect":"Allow","Action":"sts:TagSession","Principal":"*"}`):                                                                           NotTrusted,
	} {
		d, err := ParseTrust(text)
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if got := d.Trusts("111122223333", []string{ann}, "sts:AssumeRole", Context{}); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{trust(`"111122223333"`), trust(`{"AWS":"ann"}`), trust(`{"AWS":"arn:aws:iam::1*:user/*"}`), trust(`{"Who":"*"}`), one(`{"Effect":"Allow","Action":"*","Resource":"*"}`)} {
		if _, err := ParseTrust(text); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

func TestManaged(t *testing.T) {
	may := func(name, action string) bool {
		for _, m := range ManagedPolicies() {
			if m.Name == name {
				return m.Document.Evaluate(Request{Action: action, Resource: "*"}) == Allowed
			}
		}
		t.Fatalf("there is no managed policy %s", name)
		return false
	}
	const readOnly, full = "AWSElasticDisasterRecoveryReadOnlyAccess", "AWSElasticDisasterRecoveryConsoleFullAccess"
	for _, action := range []string{"drs:DescribeSourceServers", "drs:ListRecoveryPlans"} {
		if !may(readOnly, action) || !may(full, action) {
			t.Errorf("%s is denied", action)
		}
	}
	for _, action := range []string{"drs:StartRecovery", "lifeboat:ExportDisk"} {
		if may(readOnly, action) || !may(full, action) {
			t.Errorf("%s: read-only %v, full %v", action, may(readOnly, action), may(full, action))
		}
	}
	if may(full, "iam:CreateUser") {
		t.Error("full access to disaster recovery may create users")
	}
}

// Nothing that is parsed or evaluated may panic or take long, and what Parse
// accepts stays accepted.
func FuzzPolicy(f *testing.F) {
	f.Add(one(`{"Effect":"Allow","Action":"drs:*","Resource":"arn:aws:drs:*:*:*/${aws:username}*","Condition":{"ForAnyValue:StringLike":{"aws:TagKeys":["a*","${aws:x, 'y'}"]}}}`), "drs:X", server, "aws:tagkeys", "abc")
	f.Add(one(`{"Effect":"Deny","NotAction":"*","NotResource":"*","Condition":{"ArnLike":{"a":"arn:*:*"},"IpAddress":{"b":"::/0"}}}`), "", "*", "a", "arn:::::")
	f.Add(`{"Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:*"}]}`, "sts:AssumeRole", "", "", "")
	f.Fuzz(func(t *testing.T, text, action, resource, key, value string) {
		context := Context{}
		context.Set(key, value, action)
		if d, err := Parse(text); err == nil {
			r := Request{Action: action, Resource: resource, Context: context}
			first := d.Evaluate(r)
			again := mustParse(t, d.String())
			if again.Evaluate(r) != first {
				t.Error("the same policy decides otherwise")
			}
			d.Mentions(action)
		} else if _, ok := errors.AsType[*SyntaxError](err); !ok {
			t.Errorf("%v is no syntax error", err)
		}
		if d, err := ParseTrust(text); err == nil {
			d.Trusts("111122223333", []string{value}, action, context)
		}
	})
}
