package drsapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
)

var update = flag.Bool("update", false, "write testdata/contract.json anew from the code")

// noModel leaves the published model aside, as where it is not there.
var noModel = flag.Bool("nomodel", false, "test against testdata/contract.json, even where the published model is at hand")

var contractFile = filepath.Join("testdata", "contract.json")

// testdata/contract.json is what the server demands and promises, in the form of
// the published model. It is made from the code, and kept so that a constraint
// that is lost or loosened shows where the published model is not at hand; the
// conformance tests then walk it in the model's place.
func TestContract(t *testing.T) {
	got := contractOf(newSite(t).api).lines(t)
	if *update {
		if err := os.WriteFile(contractFile, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(contractFile)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	old, now := bytes.Split(want, []byte("\n")), bytes.Split(got, []byte("\n"))
	for i := range min(len(old), len(now)) {
		if !bytes.Equal(old[i], now[i]) {
			t.Fatalf("the contract has changed at line %d of %s:\n%s\nis now\n%s\nIf that is meant: go test -run TestContract -update", i+1, contractFile, old[i], now[i])
		}
	}
	t.Fatal("the contract has changed its length. If that is meant: go test -run TestContract -update")
}

// lines writes the model as JSON with a line for each operation and shape.
func (m *model) lines(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	section := func(name, end string, entries map[string]any) {
		out.WriteString(`"` + name + "\": {\n")
		for i, key := range slices.Sorted(maps.Keys(entries)) {
			text, err := json.Marshal(entries[key])
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				out.WriteString(",\n")
			}
			out.WriteString(`"` + key + `": ` + string(text))
		}
		out.WriteString("\n}" + end + "\n")
	}
	operations, shapes := map[string]any{}, map[string]any{}
	for name, op := range m.Operations {
		operations[name] = op
	}
	for name, s := range m.Shapes {
		shapes[name] = s
	}
	out.WriteString("{\n")
	section("operations", ",", operations)
	section("shapes", "", shapes)
	out.WriteString("}\n")
	return out.Bytes()
}

// contractOf describes the operations of a server as the model does.
func contractOf(a *API) *model {
	c := contract{model: &model{Operations: map[string]modelOperation{}, Shapes: map[string]*modelShape{}}, schemas: a.schemas}
	for _, op := range a.operations {
		var out modelOperation
		out.HTTP.Method, out.HTTP.RequestURI, out.HTTP.ResponseCode = op.route.method, op.route.path, op.status
		out.Input = &modelRef{c.shape(op.input, op.name+"Request")}
		input := c.Shapes[out.Input.Shape]
		for _, p := range op.places {
			member := input.Members[p.member]
			if member.Location = "querystring"; p.in == "path" {
				member.Location = "uri"
				out.HTTP.RequestURI += "{" + p.member + "}"
			}
			input.Members[p.member] = member
		}
		if op.output != nil {
			out.Output = &modelRef{c.shape(op.output, op.name+"Response")}
		}
		c.Operations[op.name] = out
	}
	return c.model
}

type contract struct {
	*model
	schemas huma.Registry
}

// unions are the structures of which exactly one member must be there, which a
// schema does not say.
var unions = []string{"RecoveryPlanStepConfiguration"}

// shape adds a schema under a name, or that of the component it refers to, and
// returns the name.
func (c contract) shape(s *huma.Schema, name string) string {
	if s.Ref != "" {
		name = strings.TrimPrefix(s.Ref, schemaPrefix)
		s = c.schemas.SchemaFromRef(s.Ref)
	}
	if c.Shapes[name] != nil {
		return name
	}
	out := &modelShape{}
	c.Shapes[name] = out
	switch s.Type {
	case huma.TypeObject:
		if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
			out.Type = "map"
			out.Max = count(s.MaxProperties)
			keys, ok := s.Extensions[propertyNames].(*huma.Schema)
			if !ok {
				keys = &huma.Schema{Type: huma.TypeString}
			}
			out.Key, out.Value = &modelMember{Shape: c.shape(keys, name+".key")}, &modelMember{Shape: c.shape(of, name+".value")}
			return name
		}
		out.Type, out.Union, out.Required = "structure", slices.Contains(unions, name), slices.Sorted(slices.Values(s.Required))
		out.Members = map[string]modelMember{}
		for _, member := range slices.Sorted(maps.Keys(s.Properties)) {
			out.Members[member] = modelMember{Shape: c.shape(s.Properties[member], name+"."+member)}
		}
	case huma.TypeArray:
		out.Type, out.Min, out.Max = "list", count(s.MinItems), count(s.MaxItems)
		out.Member = &modelMember{Shape: c.shape(s.Items, name+"[]")}
	case huma.TypeString:
		out.Type, out.Min, out.Max = "string", count(s.MinLength), count(s.MaxLength)
		out.Pattern = strings.TrimSuffix(strings.TrimPrefix(s.Pattern, "^(?:"), ")$")
		for _, value := range s.Enum {
			out.Enum = append(out.Enum, value.(string))
		}
	case huma.TypeInteger:
		out.Type = "long"
		if s.Minimum != nil {
			least := int64(*s.Minimum)
			out.Min = &least
		}
		if s.Maximum != nil {
			most := int64(*s.Maximum)
			out.Max = &most
		}
	default:
		out.Type = s.Type
	}
	return name
}

func count(n *int) *int64 {
	if n == nil {
		return nil
	}
	out := int64(*n)
	return &out
}
