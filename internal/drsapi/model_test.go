package drsapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// model is the API's description in the form that AWS publishes for its SDKs.
type model struct {
	Operations map[string]modelOperation `json:"operations"`
	Shapes     map[string]*modelShape    `json:"shapes"`
}

type modelOperation struct {
	HTTP struct {
		Method       string `json:"method"`
		RequestURI   string `json:"requestUri"`
		ResponseCode int    `json:"responseCode"`
	} `json:"http"`
	Input  *modelRef  `json:"input,omitempty"`
	Output *modelRef  `json:"output,omitempty"`
	Errors []modelRef `json:"errors,omitempty"`
}

type modelRef struct {
	Shape string `json:"shape"`
}

type modelShape struct {
	Type     string                 `json:"type"`
	Required []string               `json:"required,omitempty"`
	Members  map[string]modelMember `json:"members,omitempty"`
	Member   *modelMember           `json:"member,omitempty"`
	Key      *modelMember           `json:"key,omitempty"`
	Value    *modelMember           `json:"value,omitempty"`
	Min      *int64                 `json:"min,omitempty"`
	Max      *int64                 `json:"max,omitempty"`
	Pattern  string                 `json:"pattern,omitempty"`
	Enum     []string               `json:"enum,omitempty"`
	Union    bool                   `json:"union,omitempty"`
	Error    *struct {
		Status int `json:"httpStatusCode"`
	} `json:"error,omitempty"`
}

type modelMember struct {
	Shape    string `json:"shape"`
	Location string `json:"location,omitempty"`
}

// readModel finds the published model beside the repository; it is not part of it.
// Where it is not there, what the repository keeps of it has to do; see
// TestContract.
func readModel(t testing.TB) *model {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "api", "drs-api.json"))
	if errors.Is(err, fs.ErrNotExist) || *noModel {
		t.Log("the published model ../shared/api/drs-api.json is not beside this repository: using " + contractFile)
		text, err = os.ReadFile(contractFile)
	}
	if err != nil {
		t.Fatal(err)
	}
	m := &model{}
	if err := json.Unmarshal(text, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// extensions are the members that are ours and not in the model.
var extensions = []string{
	"DescribeRecoverySnapshotsRequestFilters.includeFuzzy", "RecoverySnapshot.consistency", "RecoverySnapshot.method", "RecoverySnapshot.freezeMilliseconds", "JobLogEventData.note",
}

// sampleText is a value of each string shape of the requests.
var sampleText = map[string]string{
	"SourceServerID": "s-0123456789abcdef0", "RecoverySnapshotID": "pit-0123456789abcdef0", "JobID": "drsjob-0123456789abcdef0",
	"RecoveryInstanceID": "i-0123456789abcdef0", "EC2InstanceID": "i-0123456789abcdef0", "AccountID": "111122223333",
	"ISO8601DatetimeString": "2026-03-01T12:00:00Z", "ARN": "arn:aws:drs:eu-west-1:111122223333:source-server/s-0123456789abcdef0",
	"StrictDRSARN":     "arn:aws:drs:eu-west-1:111122223333:recovery-plan/plan-0123456789abcdef0",
	"RecoveryPlanName": "Plan 1", "RecoveryPlanStepName": "Step 1", "RecoveryPlanDescription": "x", "ClientIdempotencyToken": "x",
	"ReplicationConfigurationTemplateID": "rct-0123456789abcdef0", "LaunchConfigurationTemplateID": "lct-0123456789abcdef0",
	"SourceServerARN": "arn:aws:drs:eu-west-1:444455556666:source-server/s-0123456789abcdef0",
	"SubnetID":        "subnet-01234567", "SecurityGroupID": "sg-01234567", "EC2InstanceType": "t3.small",
	"LaunchActionResourceId": "s-0123456789abcdef0", "LaunchActionId": "01234567-89ab-cdef-0123-456789abcdef",
	"LaunchActionName": "a", "LaunchActionDescription": "d", "LaunchActionVersion": "$LATEST", "SsmDocumentName": "AWS-RunShellScript",
	"LaunchActionParameterName": "p", "LaunchActionParameterValue": "v", "MaxResultsType": "",
	"SourceNetworkID": "sn-0123456789abcdef0", "VpcID": "vpc-0123456789abcdef0", "AwsRegion": "eu-west-1", "CfnStackName": "stack-1",
	"BoundedString": "x", "SmallBoundedString": "x", "PaginationToken": "", "TagKey": "k", "TagValue": "v",
}

// sample builds a valid value of a shape: only what is required, or everything.
func (m *model) sample(t *testing.T, name string, full bool) any {
	s := m.Shapes[name]
	if strings.HasSuffix(strings.ToLower(name), "pitpolicy") { // the domain allows but one
		rule := func(units string, interval, retention int) any {
			return map[string]any{"units": units, "interval": interval, "retentionDuration": retention}
		}
		return []any{rule("MINUTE", 10, 60), rule("HOUR", 1, 24), rule("DAY", 1, 7)}
	}
	switch s.Type {
	case "structure":
		out := map[string]any{}
		if s.Union { // exactly one member
			member := slices.Sorted(keys(s.Members))[0]
			out[member] = m.sample(t, s.Members[member].Shape, full)
			return out
		}
		for member, ref := range s.Members {
			if full || slices.Contains(s.Required, member) {
				out[member] = m.sample(t, ref.Shape, full)
			}
		}
		return out
	case "list":
		return slices.Repeat([]any{m.sample(t, s.Member.Shape, full)}, int(max(1, deref(s.Min))))
	case "map":
		return map[string]any{m.sample(t, s.Key.Shape, full).(string): m.sample(t, s.Value.Shape, full)}
	case "string":
		if len(s.Enum) > 0 {
			return s.Enum[0]
		}
		if text, ok := sampleText[name]; ok {
			return text
		}
		for _, text := range slices.Sorted(maps.Values(sampleText)) {
			if len(m.check(name, name, text)) == 0 {
				return text
			}
		}
		t.Fatalf("no sample of string shape %s", name)
	case "boolean":
		return true
	case "integer", "long":
		if s.Max != nil {
			return min(7, *s.Max)
		}
		return 7
	}
	t.Fatalf("no sample of %s %s", s.Type, name)
	return nil
}

// violation is one request that breaks one constraint.
type violation struct {
	name, field string
	input       map[string]any
}

// violations breaks each constraint of a shape once, in an input that is
// otherwise valid. put returns a whole input with the given value in the place
// of the shape.
func (m *model) violations(t *testing.T, name, path string, put func(any) map[string]any) []violation {
	s := m.Shapes[name]
	var out []violation
	broken := func(what string, v any) {
		if input := put(v); input != nil {
			out = append(out, violation{name: path + ": " + what, field: path, input: input})
		}
	}
	switch s.Type {
	case "structure":
		if path != "" {
			broken("wrong type", "x")
		}
		for _, member := range slices.Sorted(keys(s.Members)) {
			ref, inner := s.Members[member], member
			if path != "" {
				inner = path + "." + member
			}
			putMember := func(v any) map[string]any {
				whole := m.sample(t, name, false).(map[string]any)
				if v == nil {
					delete(whole, member)
				} else {
					whole[member] = v
				}
				return put(whole)
			}
			if slices.Contains(s.Required, member) && ref.Location != "uri" {
				out = append(out, violation{inner + ": missing", inner, putMember(nil)})
			}
			out = append(out, m.violations(t, ref.Shape, inner, putMember)...)
		}
	case "list":
		broken("wrong type", map[string]any{})
		if s.Min != nil && *s.Min > 0 {
			broken("too short", []any{})
		}
		if s.Max != nil {
			broken("too long", slices.Repeat([]any{m.sample(t, s.Member.Shape, false)}, int(*s.Max)+1))
		}
		out = append(out, m.violations(t, s.Member.Shape, path+"[0]", func(v any) map[string]any {
			list := slices.Clone(m.sample(t, name, false).([]any)) // as long as it must be
			list[0] = v
			return put(list)
		})...)
	case "map":
		broken("wrong type", []any{})
		key, value := m.sample(t, s.Key.Shape, false), m.sample(t, s.Value.Shape, false)
		out = append(out, m.violations(t, s.Key.Shape, "", func(v any) map[string]any {
			text, ok := v.(string)
			if !ok { // keys of JSON objects are nothing else
				return nil
			}
			return put(map[string]any{text: value})
		})...)
		for _, v := range m.violations(t, s.Value.Shape, "", func(v any) map[string]any { return put(map[string]any{key.(string): v}) }) {
			v.field = ""
			out = append(out, v)
		}
		if s.Max != nil {
			many := map[string]any{}
			for i := range *s.Max + 1 {
				many[fmt.Sprint("k", i)] = value
			}
			broken("too many", many)
		}
	case "string":
		broken("wrong type", 5)
		if s.Max != nil {
			broken("too long", strings.Repeat("x", int(*s.Max)+1))
		}
		if s.Min != nil && *s.Min > 1 {
			broken("too short", "x")
		}
		if s.Pattern != "" {
			broken("wrong pattern", strings.Repeat("é", max(1, int(deref(s.Min)))))
		}
		if len(s.Enum) > 0 {
			broken("not in enum", "SOMETHING_ELSE")
		}
	case "boolean":
		broken("wrong type", "true")
	case "integer", "long":
		broken("wrong type", "5")
		broken("not whole", 1.5)
		if s.Min != nil {
			broken("too small", *s.Min-1)
		}
		if s.Max != nil {
			broken("too large", *s.Max+1)
		} else if s.Type == "integer" {
			broken("too large", int64(1)<<31)
		}
	}
	return out
}

func deref(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// check compares a value with a shape of the model.
func (m *model) check(name, path string, v any) (problems []string) {
	s := m.Shapes[name]
	bad := func(format string, args ...any) {
		problems = append(problems, path+" "+fmt.Sprintf(format, args...))
	}
	switch s.Type {
	case "structure":
		object, ok := v.(map[string]any)
		if !ok {
			bad("is %T, want an object", v)
			return problems
		}
		for member, inner := range object {
			ref, known := s.Members[member]
			switch {
			case known:
				problems = append(problems, m.check(ref.Shape, path+"."+member, inner)...)
			case !slices.Contains(extensions, name+"."+member):
				bad("has %s, which is not in the model", member)
			}
		}
		for _, member := range s.Required {
			if object[member] == nil {
				bad("lacks %s", member)
			}
		}
	case "list":
		list, ok := v.([]any)
		if !ok {
			bad("is %T, want a list", v)
			return problems
		}
		for i, item := range list {
			problems = append(problems, m.check(s.Member.Shape, fmt.Sprintf("%s[%d]", path, i), item)...)
		}
		if n := int64(len(list)); s.Min != nil && n < *s.Min || s.Max != nil && n > *s.Max {
			bad("has %d items", n)
		}
	case "map":
		object, ok := v.(map[string]any)
		if !ok {
			bad("is %T, want a map", v)
			return problems
		}
		for key, inner := range object {
			problems = append(problems, m.check(s.Value.Shape, path+"."+key, inner)...)
		}
	case "string":
		text, ok := v.(string)
		if !ok {
			bad("is %T, want a string", v)
			return problems
		}
		if n := int64(len(text)); s.Min != nil && n < *s.Min || s.Max != nil && n > *s.Max {
			bad("has %d characters", n)
		}
		if s.Pattern != "" && !strings.Contains(s.Pattern, "{16,2044}") && !compiled("^(?:"+s.Pattern+")$").MatchString(text) {
			bad("%q does not match %s", text, s.Pattern)
		}
		if len(s.Enum) > 0 && !slices.Contains(s.Enum, text) {
			bad("%q is not one of %v", text, s.Enum)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			bad("is %T, want a boolean", v)
		}
	case "integer", "long":
		if n, ok := v.(float64); !ok || s.Min != nil && n < float64(*s.Min) {
			bad("is %v, want a number", v)
		}
	default:
		bad("is of type %s, which this test does not know", s.Type)
	}
	return problems
}
