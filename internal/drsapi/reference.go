package drsapi

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// ReferencePath is where people read what /openapi.json tells programs.
const ReferencePath = "/reference"

//go:embed reference.html
var referenceHTML string

// reference renders the operations as one page: no scripts and nothing from
// elsewhere, so that it can be read, searched and printed when nothing else works.
func (a *API) reference() ([]byte, error) {
	page, err := template.New("reference").Parse(referenceHTML)
	if err != nil {
		return nil, fmt.Errorf("read the reference's template: %w", err)
	}
	var operations []referenceOperation
	for _, op := range slices.SortedFunc(maps.Values(a.operations), func(x, y *operation) int { return cmp.Compare(x.name, y.name) }) {
		operations = append(operations, a.describeForPeople(op))
	}
	var out bytes.Buffer
	if err := page.Execute(&out, operations); err != nil {
		return nil, fmt.Errorf("render the reference: %w", err)
	}
	return out.Bytes(), nil
}

// referenceOperation is one operation as the page shows it.
type referenceOperation struct {
	Name, Method, Path string
	Status             int
	CLI                string // the same as a command
	Input, Output      []referenceMember
}

// referenceMember is one line of a table; members of members come after it, deeper.
type referenceMember struct {
	Name     string
	Depth    int
	Type     string
	Required bool
	Limits   string
}

func (a *API) describeForPeople(op *operation) referenceOperation {
	path := op.route.path
	for _, p := range op.places {
		if p.in == "path" {
			path += "{" + p.member + "}"
		}
	}
	return referenceOperation{
		Name: op.name, Method: op.route.method, Path: path, Status: op.status, CLI: "aws drs " + kebab(op.name),
		Input: a.linesOf(op.input, 0, nil), Output: a.linesOf(op.output, 0, nil),
	}
}

// linesOf lists the members of an object, required ones first. within holds the
// shapes that it lies in, for a shape may hold itself.
func (a *API) linesOf(s *huma.Schema, depth int, within []string) []referenceMember {
	s, within = a.resolve(s, within)
	if s == nil {
		return nil
	}
	var lines []referenceMember
	for _, name := range slices.SortedFunc(maps.Keys(s.Properties), func(x, y string) int {
		first := func(name string) int {
			if slices.Contains(s.Required, name) {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(first(x), first(y)), cmp.Compare(x, y))
	}) {
		member, inside := a.resolve(s.Properties[name], within)
		if member == nil {
			continue
		}
		line := referenceMember{Name: name, Depth: depth, Required: slices.Contains(s.Required, name)}
		item := member
		if member.Type == huma.TypeArray {
			if item, inside = a.resolve(member.Items, inside); item == nil {
				continue
			}
		}
		line.Type, line.Limits = typeText(member, item), limitsOf(member, item)
		lines = append(lines, line)
		if item.Type == huma.TypeObject {
			lines = append(lines, a.linesOf(item, depth+1, inside)...)
		}
	}
	return lines
}

// resolve follows references; one to a shape that is being described is nil.
func (a *API) resolve(s *huma.Schema, within []string) (*huma.Schema, []string) {
	for s != nil && s.Ref != "" {
		if slices.Contains(within, s.Ref) {
			return nil, within
		}
		within = append(within[:len(within):len(within)], s.Ref)
		s = a.schemas.SchemaFromRef(s.Ref)
	}
	return s, within
}

func typeText(member, item *huma.Schema) string {
	name := item.Type
	if _, isMap := item.AdditionalProperties.(*huma.Schema); isMap {
		name = "map of text"
	}
	if name == huma.TypeString {
		name = "text"
	}
	if member != item {
		name = "list of " + name
	}
	return name
}

func limitsOf(member, item *huma.Schema) string {
	var limits []string
	tell := func(format string, args ...any) { limits = append(limits, fmt.Sprintf(format, args...)) }
	between := func(low, high *int, of string) {
		switch {
		case low != nil && *low > 0 && high != nil && *low == *high:
			tell("%d %s", *low, of)
		case low != nil && *low > 0 && high != nil:
			tell("%d to %d %s", *low, *high, of)
		case high != nil:
			tell("up to %d %s", *high, of)
		case low != nil && *low > 0:
			tell("at least %d %s", *low, of)
		}
	}
	between(member.MinItems, member.MaxItems, "items")
	if len(item.Enum) > 0 {
		words := make([]string, len(item.Enum))
		for i, v := range item.Enum {
			words[i] = fmt.Sprint(v)
		}
		tell("one of %s", strings.Join(words, ", "))
	}
	between(item.MinLength, item.MaxLength, "characters")
	if item.Pattern != "" {
		tell("like %s", strings.TrimSuffix(strings.TrimPrefix(item.Pattern, "^(?:"), ")$"))
	}
	if item.Minimum != nil {
		tell("at least %.0f", *item.Minimum)
	}
	if item.Maximum != nil {
		tell("at most %.0f", *item.Maximum)
	}
	return strings.Join(limits, "; ")
}

// kebab writes an operation's name as the AWS CLI does.
func kebab(name string) string {
	var out strings.Builder
	for i, r := range name {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				out.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		out.WriteRune(r)
	}
	return out.String()
}

// servePage answers with a page that asks for nothing from elsewhere.
func servePage(w http.ResponseWriter, page []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(page) // a client that left needs no answer
}
