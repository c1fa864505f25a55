package policy

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Document is a policy that was understood in full. It is immutable and safe for
// concurrent use.
type Document struct {
	statements []statement
	text       string
}

// MaxSize is how many characters, white space not counted, a policy may have.
const MaxSize = 6144

// String is the document as it was given.
func (d *Document) String() string { return d.text }

type statement struct {
	sid        string
	allow      bool
	principals *principals // nil in identity policies
	actions    []pattern
	notActions bool
	resources  []resourcePattern
	notRes     bool
	conditions []condition
}

// kind is where a document is used, which decides on the elements it must have.
type kind int

const (
	identity kind = iota
	trust
)

// Parse reads a policy that is attached to a user or a role. It refuses with
// *SyntaxError.
func Parse(text string) (*Document, error) { return parse(text, identity) }

// ParseTrust reads the trust policy of a role: it names principals and no
// resources. It refuses with *SyntaxError.
func ParseTrust(text string) (*Document, error) { return parse(text, trust) }

const (
	version2008 = "2008-10-17" // knows no policy variables
	version2012 = "2012-10-17"
)

func parse(text string, k kind) (*Document, error) {
	if size(text) > MaxSize {
		return nil, (&node{text: []byte(text)}).wrong("the policy has more than %d characters", MaxSize)
	}
	root, err := parseNode([]byte(text))
	if err != nil {
		return nil, err
	}
	if !root.object {
		return nil, root.wrong("want a JSON object")
	}
	d := &Document{text: text}
	version := version2008
	for _, m := range root.members {
		switch m.name {
		case "Version":
			version, _ = m.value.(string)
			if version != version2008 && version != version2012 {
				return nil, m.wrong(`want "%s" or "%s"`, version2012, version2008)
			}
		case "Id":
			if _, ok := m.value.(string); !ok {
				return nil, m.wrong("want a string")
			}
		case "Statement":
		default:
			return nil, m.wrong("there is no such element; a policy has Version, Id and Statement")
		}
	}
	list := root.member("Statement")
	if list == nil {
		return nil, root.wrong("the policy has no Statement")
	}
	nodes := list.items
	if list.object {
		nodes = []*node{list}
	}
	if len(nodes) == 0 {
		return nil, list.wrong("want a statement or a list of them")
	}
	for _, n := range nodes {
		s, err := readStatement(n, k, version == version2012)
		if err != nil {
			return nil, err
		}
		if s.sid != "" && slices.ContainsFunc(d.statements, func(o statement) bool { return o.sid == s.sid }) {
			return nil, n.member("Sid").wrong("another statement has the same Sid")
		}
		d.statements = append(d.statements, s)
	}
	return d, nil
}

func size(text string) int {
	n := 0
	for _, r := range text {
		if !unicode.IsSpace(r) {
			n++
		}
	}
	return n
}

var sidForm = regexp.MustCompile(`^[0-9A-Za-z]*$`)

func readStatement(n *node, k kind, variables bool) (s statement, err error) {
	if !n.object {
		return s, n.wrong("want a JSON object")
	}
	for _, m := range n.members {
		switch m.name {
		case "Sid":
			var ok bool
			if s.sid, ok = m.value.(string); !ok || !sidForm.MatchString(s.sid) {
				return s, m.wrong("want letters and digits only")
			}
		case "Effect":
			switch m.value {
			case "Allow":
				s.allow = true
			case "Deny":
			default:
				return s, m.wrong(`want "Allow" or "Deny"`)
			}
		case "Action", "NotAction":
			s.notActions = m.name == "NotAction"
			s.actions, err = readActions(m.node)
		case "Resource", "NotResource":
			s.notRes = m.name == "NotResource"
			s.resources, err = readResources(m.node, variables)
		case "Principal", "NotPrincipal":
			s.principals, err = readPrincipals(m)
		case "Condition":
			s.conditions, err = readConditions(m.node, variables)
		default:
			return s, m.wrong("there is no such element in a statement")
		}
		if err != nil {
			return s, err
		}
	}
	return s, complete(n, k)
}

// complete checks that a statement has one of each pair of elements.
func complete(n *node, k kind) error {
	if n.member("Effect") == nil {
		return n.wrong("the statement has no Effect")
	}
	one := func(name string, wanted bool, why string) error {
		plain, negated := n.member(name), n.member("Not"+name)
		switch {
		case plain != nil && negated != nil:
			return negated.wrong("the statement has %s, too: give one of the two", name)
		case wanted && plain == nil && negated == nil:
			return n.wrong("the statement has no %s", name)
		case !wanted && plain != nil:
			return plain.wrong("%s", why)
		case !wanted && negated != nil:
			return negated.wrong("%s", why)
		}
		return nil
	}
	for _, err := range []error{
		one("Action", true, ""),
		one("Resource", k == identity, "a trust policy has no resources: it belongs to its role"),
		one("Principal", k == trust, "a policy of a user or role has no principals: it speaks of whom it is attached to"),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

var actionForm = regexp.MustCompile(`^[a-zA-Z0-9*?-]+:[a-zA-Z0-9*?]+$`)

func readActions(n *node) ([]pattern, error) {
	list, err := n.strings()
	if err != nil {
		return nil, err
	}
	out := make([]pattern, len(list))
	for i, text := range list {
		if text != "*" && !actionForm.MatchString(text) {
			return nil, n.at(i).wrong("%q is no action: want SERVICE:ACTION, such as drs:StartRecovery, with * and ? as wildcards", text)
		}
		out[i] = compile(strings.ToLower(text), false)
	}
	return out, nil
}

func readResources(n *node, variables bool) ([]resourcePattern, error) {
	list, err := n.strings()
	if err != nil {
		return nil, err
	}
	out := make([]resourcePattern, len(list))
	for i, text := range list {
		resource, reason := compileResource(text, variables)
		if reason != "" {
			return nil, n.at(i).wrong("%s", reason)
		}
		out[i] = resource
	}
	return out, nil
}

// Quote writes a string as a policy needs it, for those who build documents.
func Quote(s string) string {
	text, _ := json.Marshal(s) // a string always can be
	return string(text)
}
