package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// SyntaxError refuses a document. Path is the place within it, as in
// Statement[1].Condition.StringLike; Line and Column count from 1.
type SyntaxError struct {
	Path         string
	Line, Column int
	Reason       string
}

func (e *SyntaxError) Error() string {
	at := fmt.Sprintf("line %d, column %d", e.Line, e.Column)
	if e.Path != "" {
		at = e.Path + " (" + at + ")"
	}
	return "malformed policy at " + at + ": " + e.Reason
}

// node is one JSON value that remembers its place. encoding/json alone would
// accept a member that is given twice and forget where everything stood.
type node struct {
	text    []byte // the whole document
	path    string
	offset  int64
	value   any // string, bool, json.Number or nil; for members and items, nothing
	members []member
	items   []*node
	object  bool
	list    bool
}

type member struct {
	name string
	*node
}

// maxDepth is more than any policy nests.
const maxDepth = 8

func parseNode(text []byte) (*node, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	root, err := readNode(d, text, "", 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, (&node{text: text, offset: d.InputOffset()}).wrong("something follows the document")
	}
	return root, nil
}

func readNode(d *json.Decoder, text []byte, path string, depth int) (*node, error) {
	n := &node{text: text, path: path, offset: d.InputOffset()}
	if depth > maxDepth {
		return nil, n.wrong("it is nested too deeply")
	}
	token, err := d.Token()
	if err != nil {
		return nil, n.notJSON(err)
	}
	n.offset = d.InputOffset() // the end of the token: near enough, and never on white space before it
	switch delim, _ := token.(json.Delim); delim {
	case '{':
		n.object = true
		return n, n.readMembers(d, depth)
	case '[':
		n.list = true
		for d.More() {
			item, err := readNode(d, text, fmt.Sprintf("%s[%d]", path, len(n.items)), depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		if _, err := d.Token(); err != nil {
			return nil, n.notJSON(err)
		}
		return n, nil
	}
	n.value = token
	return n, nil
}

func (n *node) readMembers(d *json.Decoder, depth int) error {
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return n.notJSON(err)
		}
		name, _ := token.(string)
		path := name
		if n.path != "" {
			path = n.path + "." + name
		}
		if n.member(name) != nil {
			return (&node{text: n.text, path: path, offset: d.InputOffset()}).wrong("it is given twice")
		}
		value, err := readNode(d, n.text, path, depth+1)
		if err != nil {
			return err
		}
		n.members = append(n.members, member{name, value})
	}
	if _, err := d.Token(); err != nil {
		return n.notJSON(err)
	}
	return nil
}

func (n *node) member(name string) *node {
	for _, m := range n.members {
		if m.name == name {
			return m.node
		}
	}
	return nil
}

// strings reads a string or a list of strings.
func (n *node) strings() ([]string, error) {
	if text, ok := n.value.(string); ok {
		return []string{text}, nil
	}
	if !n.list {
		return nil, n.wrong("want a string or a list of strings")
	}
	if len(n.items) == 0 {
		return nil, n.wrong("the list is empty")
	}
	out := make([]string, len(n.items))
	for i, item := range n.items {
		text, ok := item.value.(string)
		if !ok {
			return nil, item.wrong("want a string")
		}
		out[i] = text
	}
	return out, nil
}

// at is the place of the ith string that strings returned.
func (n *node) at(i int) *node {
	if n.list {
		return n.items[i]
	}
	return n
}

func (n *node) wrong(format string, args ...any) error {
	before := n.text[:min(max(n.offset, 0), int64(len(n.text)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - (bytes.LastIndexByte(before, '\n') + 1)
	return &SyntaxError{Path: n.path, Line: line, Column: max(column, 1), Reason: fmt.Sprintf(format, args...)}
}

func (n *node) notJSON(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return (&node{text: n.text, path: n.path, offset: syntax.Offset}).wrong("not JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return n.wrong("not JSON: it ends too early")
}
