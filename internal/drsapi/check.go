package drsapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"lifeboat/internal/drs"
)

// parseObject reads a body: a JSON object, or nothing, which means an empty one.
func parseObject(body []byte) (map[string]any, error) {
	members := map[string]any{}
	if len(bytes.TrimSpace(body)) == 0 {
		return members, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&members); err != nil || members == nil {
		return nil, cannotParse("The body is not a JSON object.")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, cannotParse("The body has something after its JSON object.")
	}
	return members, nil
}

// propertyNames is where the schema of a map keeps that of its keys.
const propertyNames = "propertyNames"

// boundTags gives the maps of text in a request their bounds: they are tags, all of
// them.
func boundTags(schemas huma.Registry, s *huma.Schema) {
	for s.Ref != "" {
		s = schemas.SchemaFromRef(s.Ref)
	}
	for _, member := range s.Properties {
		if of, ok := member.AdditionalProperties.(*huma.Schema); ok && of.Type == huma.TypeString && of.MaxLength == nil {
			member.AdditionalProperties = text(0, maxTagText, "")
			member.Extensions = map[string]any{propertyNames: text(0, maxTagText, "")}
		}
	}
}

// checker holds a value against a schema, member by member, and collects what is
// wrong with it.
type checker struct {
	schemas  huma.Registry
	problems []drs.FieldError
}

// maxProblems bounds the reply to a request in which everything is wrong.
const maxProblems = 50

func (c *checker) wrong(path string, value any, format string, args ...any) {
	if len(c.problems) >= maxProblems {
		return
	}
	shown := ""
	// Tags may hold secrets.
	if text, ok := value.(string); ok && !sensitive(path) && utf8.RuneCountInString(text) <= 64 {
		shown = fmt.Sprintf(" '%s'", text)
	}
	message := fmt.Sprintf("Value%s at '%s' failed to satisfy constraint: Member must %s", shown, path, fmt.Sprintf(format, args...))
	c.problems = append(c.problems, drs.FieldError{Name: path, Message: message})
}

// sensitive tells the members that the model calls so.
func sensitive(path string) bool {
	return strings.HasPrefix(path, "tag") || strings.HasPrefix(path, "stagingAreaTags")
}

// invalidFields is the refusal that tells all problems.
func invalidFields(problems []drs.FieldError) error {
	messages := make([]string, len(problems))
	for i, p := range problems {
		messages[i] = p.Message
	}
	plural := "s"
	if len(problems) == 1 {
		plural = ""
	}
	return &drs.Error{
		Kind: drs.KindValidation, Fields: problems,
		Message: fmt.Sprintf("%d validation error%s detected: %s", len(problems), plural, strings.Join(messages, "; ")),
	}
}

// value checks one value and returns what of it the schema declares: members
// that it does not know are left out, and so are nulls, which mean absence.
func (c *checker) value(s *huma.Schema, path string, v any) any {
	for s.Ref != "" {
		s = c.schemas.SchemaFromRef(s.Ref)
	}
	switch s.Type {
	case huma.TypeObject:
		object, ok := v.(map[string]any)
		if !ok {
			c.wrong(path, v, "be an object")
			return nil
		}
		if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
			return c.entries(s, of, path, object)
		}
		return c.members(s, path, object)
	case huma.TypeArray:
		list, ok := v.([]any)
		if !ok {
			c.wrong(path, v, "be a list")
			return nil
		}
		return c.list(s, path, list)
	case huma.TypeString:
		text, ok := v.(string)
		if !ok {
			c.wrong(path, v, "be a string")
			return nil
		}
		c.text(s, path, text)
	case huma.TypeInteger:
		c.integer(s, path, v)
	case huma.TypeBoolean:
		if _, ok := v.(bool); !ok {
			c.wrong(path, v, "be true or false")
		}
	}
	return v
}

func (c *checker) members(s *huma.Schema, path string, object map[string]any) map[string]any {
	kept := make(map[string]any, len(object))
	for _, name := range sortedNames(s.Properties) {
		v, inner := object[name], name
		if path != "" {
			inner = path + "." + name
		}
		switch {
		case v != nil:
			kept[name] = c.value(s.Properties[name], inner, v)
		case slices.Contains(s.Required, name):
			c.wrong(inner, nil, "not be null")
		}
	}
	return kept
}

// entries checks a map from any key to a value of one shape.
func (c *checker) entries(s, of *huma.Schema, path string, object map[string]any) map[string]any {
	kept := make(map[string]any, len(object))
	if s.MaxProperties != nil && len(object) > *s.MaxProperties {
		c.wrong(path, nil, "have length less than or equal to %d", *s.MaxProperties)
		return kept
	}
	names, _ := s.Extensions[propertyNames].(*huma.Schema)
	for _, key := range sortedNames(object) {
		if names != nil {
			c.text(names, path+" (a key)", key)
		} else {
			c.noZero(path, key)
		}
		if v := object[key]; v != nil {
			kept[key] = c.value(of, path, v)
		}
	}
	return kept
}

func (c *checker) list(s *huma.Schema, path string, list []any) []any {
	if s.MinItems != nil && len(list) < *s.MinItems {
		c.wrong(path, nil, "have length greater than or equal to %d", *s.MinItems)
	}
	if s.MaxItems != nil && len(list) > *s.MaxItems {
		c.wrong(path, nil, "have length less than or equal to %d", *s.MaxItems)
		return nil
	}
	kept := make([]any, len(list))
	for i, v := range list {
		kept[i] = c.value(s.Items, fmt.Sprintf("%s[%d]", path, i), v)
	}
	return kept
}

func (c *checker) text(s *huma.Schema, path, text string) {
	c.noZero(path, text)
	length := utf8.RuneCountInString(text)
	if s.MinLength != nil && length < *s.MinLength {
		c.wrong(path, text, "have length greater than or equal to %d", *s.MinLength)
	}
	if s.MaxLength != nil && length > *s.MaxLength {
		c.wrong(path, text, "have length less than or equal to %d", *s.MaxLength)
	}
	if s.Pattern != "" && !compiled(s.Pattern).MatchString(text) {
		c.wrong(path, text, "satisfy regular expression pattern: %s", strings.TrimSuffix(strings.TrimPrefix(s.Pattern, "^(?:"), ")$"))
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, any(text)) {
		c.wrong(path, text, "satisfy enum value set: %v", s.Enum)
	}
}

// noZero refuses what no database keeps as text, and nobody means.
func (c *checker) noZero(path, text string) {
	if strings.IndexByte(text, 0) >= 0 {
		c.wrong(path, nil, "not contain the character U+0000")
	}
}

func (c *checker) integer(s *huma.Schema, path string, v any) {
	number, _ := v.(json.Number)
	n, err := number.Int64()
	switch {
	case err != nil:
		c.wrong(path, v, "be a whole number")
	case s.Minimum != nil && n < int64(*s.Minimum):
		c.wrong(path, v, "have value greater than or equal to %d", int64(*s.Minimum))
	case s.Maximum != nil && n > int64(*s.Maximum):
		c.wrong(path, v, "have value less than or equal to %d", int64(*s.Maximum))
	}
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var patterns sync.Map // pattern text to *regexp.Regexp; there are a dozen

func compiled(pattern string) *regexp.Regexp {
	if known, ok := patterns.Load(pattern); ok {
		return known.(*regexp.Regexp)
	}
	re := regexp.MustCompile(pattern)
	patterns.Store(pattern, re)
	return re
}
