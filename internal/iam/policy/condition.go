package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Context holds the condition keys of a request, in lower case, with their
// values. A key that is absent has no value; NewContext sees to the case.
type Context map[string][]string

// Set gives a key its values, replacing earlier ones; none removes it.
func (c Context) Set(key string, values ...string) {
	key = strings.ToLower(key)
	if len(values) == 0 {
		delete(c, key)
		return
	}
	c[key] = values
}

// condition is one key under one operator.
type condition struct {
	operator operator
	ifExists bool
	set      string // "", forAny or forAll
	key      string
	values   []pattern
}

const (
	forAny = "ForAnyValue"
	forAll = "ForAllValues"
)

// operator compares one value of the request with one of the policy.
type operator struct {
	compare func(got string, want pattern) bool
	valid   func(want string) bool // nil: any text
	negated bool
	null    bool
}

var operators = map[string]operator{
	"StringEquals":              {compare: sameText},
	"StringNotEquals":           {compare: sameText, negated: true},
	"StringEqualsIgnoreCase":    {compare: sameFold},
	"StringNotEqualsIgnoreCase": {compare: sameFold, negated: true},
	"StringLike":                {compare: like},
	"StringNotLike":             {compare: like, negated: true},
	"NumericEquals":             numeric(func(c int) bool { return c == 0 }, false),
	"NumericNotEquals":          numeric(func(c int) bool { return c == 0 }, true),
	"NumericLessThan":           numeric(func(c int) bool { return c < 0 }, false),
	"NumericLessThanEquals":     numeric(func(c int) bool { return c <= 0 }, false),
	"NumericGreaterThan":        numeric(func(c int) bool { return c > 0 }, false),
	"NumericGreaterThanEquals":  numeric(func(c int) bool { return c >= 0 }, false),
	"DateEquals":                date(func(c int) bool { return c == 0 }, false),
	"DateNotEquals":             date(func(c int) bool { return c == 0 }, true),
	"DateLessThan":              date(func(c int) bool { return c < 0 }, false),
	"DateLessThanEquals":        date(func(c int) bool { return c <= 0 }, false),
	"DateGreaterThan":           date(func(c int) bool { return c > 0 }, false),
	"DateGreaterThanEquals":     date(func(c int) bool { return c >= 0 }, false),
	"Bool":                      {compare: sameFold, valid: isBool},
	"BinaryEquals":              {compare: sameText},
	"IpAddress":                 {compare: within, valid: isPrefix},
	"NotIpAddress":              {compare: within, valid: isPrefix, negated: true},
	"ArnEquals":                 {compare: arnLike},
	"ArnNotEquals":              {compare: arnLike, negated: true},
	"ArnLike":                   {compare: arnLike},
	"ArnNotLike":                {compare: arnLike, negated: true},
	"Null":                      {valid: isBool, null: true},
}

func readConditions(n *node, variables bool) ([]condition, error) {
	if !n.object {
		return nil, n.wrong("want a JSON object of operators")
	}
	var out []condition
	for _, m := range n.members {
		c := condition{}
		name := m.name
		if set, rest, ok := strings.Cut(name, ":"); ok {
			if set != forAny && set != forAll {
				return nil, m.wrong("%q is no set operator: want %s or %s", set, forAny, forAll)
			}
			c.set, name = set, rest
		}
		if plain, ok := strings.CutSuffix(name, "IfExists"); ok {
			c.ifExists, name = true, plain
		}
		var known bool
		if c.operator, known = operators[name]; !known {
			return nil, m.wrong("there is no condition operator %q", name)
		}
		if c.operator.null && (c.ifExists || c.set != "") {
			return nil, m.wrong("Null takes neither IfExists nor a set operator")
		}
		if !m.object || len(m.members) == 0 {
			return nil, m.wrong("want a JSON object of condition keys")
		}
		for _, key := range m.members {
			if key.name == "" {
				return nil, key.wrong("the condition key is empty")
			}
			c.key = strings.ToLower(key.name)
			var err error
			if c.values, err = readValues(key.node, c.operator, variables); err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// readValues reads one value or a list; numbers and booleans may be written
// without quotes.
func readValues(n *node, op operator, variables bool) ([]pattern, error) {
	nodes := n.items
	if !n.list {
		nodes = []*node{n}
	}
	if len(nodes) == 0 {
		return nil, n.wrong("the list is empty")
	}
	out := make([]pattern, len(nodes))
	for i, v := range nodes {
		var text string
		switch value := v.value.(type) {
		case string:
			text = value
		case bool:
			text = strconv.FormatBool(value)
		case interface{ String() string }: // a number
			text = value.String()
		default:
			return nil, v.wrong("want a string, a number or a boolean")
		}
		out[i] = compile(text, variables)
		hasVariable := slices.ContainsFunc(out[i], func(p part) bool { return p.variable != "" })
		if op.valid != nil && !hasVariable && !op.valid(text) {
			return nil, v.wrong("%q is no value for this operator", text)
		}
	}
	return out, nil
}

// holds tells whether a request meets the condition.
func (c condition) holds(ctx Context) bool {
	got := ctx[c.key]
	if c.operator.null {
		return slices.ContainsFunc(c.values, func(want pattern) bool {
			return strings.EqualFold(want.plain(), strconv.FormatBool(len(got) == 0))
		})
	}
	if len(got) == 0 {
		switch {
		case c.ifExists, c.set == forAll:
			return true
		case c.set == forAny:
			return false
		}
		return c.operator.negated
	}
	one := func(value string) bool { return c.matchesAny(value, ctx) != c.operator.negated }
	if c.set == forAll || c.set == "" && c.operator.negated {
		return !slices.ContainsFunc(got, func(v string) bool { return !one(v) })
	}
	return slices.ContainsFunc(got, one)
}

func (c condition) matchesAny(value string, ctx Context) bool {
	return slices.ContainsFunc(c.values, func(want pattern) bool {
		want, ok := want.resolve(ctx)
		return ok && c.operator.compare(value, want)
	})
}

func sameText(got string, want pattern) bool { return got == want.plain() }
func sameFold(got string, want pattern) bool { return strings.EqualFold(got, want.plain()) }
func like(got string, want pattern) bool     { return want.match(got) }

func numeric(accept func(int) bool, negated bool) operator {
	return operator{negated: negated, valid: isNumber, compare: func(got string, want pattern) bool {
		a, errA := strconv.ParseFloat(got, 64)
		b, errB := strconv.ParseFloat(want.plain(), 64)
		if errA != nil || errB != nil {
			return false
		}
		switch {
		case a < b:
			return accept(-1)
		case a > b:
			return accept(1)
		}
		return accept(0)
	}}
}

func date(accept func(int) bool, negated bool) operator {
	return operator{negated: negated, valid: isDate, compare: func(got string, want pattern) bool {
		a, okA := parseDate(got)
		b, okB := parseDate(want.plain())
		return okA && okB && accept(a.Compare(b))
	}}
}

// parseDate reads the ISO 8601 forms that policies use, or seconds since 1970.
func parseDate(s string) (time.Time, bool) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02"} {
		if t, err := time.Parse(form, s); err == nil {
			return t, true
		}
	}
	seconds, err := strconv.ParseInt(s, 10, 64)
	return time.Unix(seconds, 0), err == nil
}

func within(got string, want pattern) bool {
	address, err := netip.ParseAddr(got)
	if err != nil {
		return false
	}
	prefix, ok := parsePrefix(want.plain())
	return ok && prefix.Contains(address.Unmap())
}

func parsePrefix(s string) (netip.Prefix, bool) {
	if !strings.Contains(s, "/") {
		address, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()), true
	}
	prefix, err := netip.ParsePrefix(s)
	return prefix, err == nil
}

// arnLike compares ARNs segment by segment: a star does not reach over a colon
// but in the last one.
func arnLike(got string, want pattern) bool {
	segments := [arnSegments]pattern{}
	n := 0
	for _, p := range want {
		for p.literal != "" && n < arnSegments-1 {
			before, after, found := strings.Cut(p.literal, ":")
			if before != "" {
				segments[n] = append(segments[n], part{literal: before})
			}
			if !found {
				p.literal = ""
				break
			}
			n++
			p.literal = after
		}
		if p.literal != "" || p.wildcard != 0 {
			segments[n] = append(segments[n], p)
		}
	}
	values := splitARN(got)
	if n != arnSegments-1 || len(values) != arnSegments {
		return len(want) == 1 && want[0].wildcard == '*'
	}
	for i := range segments {
		if !segments[i].match(values[i]) {
			return false
		}
	}
	return true
}

func isBool(s string) bool   { return strings.EqualFold(s, "true") || strings.EqualFold(s, "false") }
func isNumber(s string) bool { _, err := strconv.ParseFloat(s, 64); return err == nil }
func isDate(s string) bool   { _, ok := parseDate(s); return ok }
func isPrefix(s string) bool { _, ok := parsePrefix(s); return ok }
