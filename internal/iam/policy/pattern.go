package policy

import "strings"

// pattern is text with wildcards and variables.
type pattern []part

// part is a piece of literal text, a wildcard or a variable.
type part struct {
	literal  string
	wildcard byte // '*' or '?'; 0: none
	variable string
	fallback *string // used when the variable has no value
}

// compile reads wildcards and, where they are known, ${variables}. A variable
// that is not well-formed is literal text, as it is to AWS.
func compile(text string, variables bool) pattern {
	var p pattern
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			p = append(p, part{literal: literal.String()})
			literal.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '*' || c == '?':
			flush()
			p = append(p, part{wildcard: c})
		case c == '$' && variables:
			v, n := readVariable(text[i:])
			switch {
			case n == 0:
				literal.WriteByte(c)
			case v.literal != "":
				literal.WriteString(v.literal)
			default:
				flush()
				p = append(p, v)
			}
			i += max(n-1, 0)
		default:
			literal.WriteByte(c)
		}
	}
	flush()
	return p
}

// readVariable reads ${name}, ${name, 'default'} or an escaped ${*}, ${?}, ${$}
// at the start of the text, and how long it is; 0: there is none.
func readVariable(text string) (part, int) {
	if !strings.HasPrefix(text, "${") {
		return part{}, 0
	}
	end := strings.IndexByte(text, '}')
	if end < 0 {
		return part{}, 0
	}
	inner := strings.TrimSpace(text[2:end])
	switch inner {
	case "*", "?", "$":
		return part{literal: inner}, end + 1
	case "":
		return part{}, 0
	}
	name, fallback, has := strings.Cut(inner, ",")
	v := part{variable: strings.ToLower(strings.TrimSpace(name))}
	if has {
		fallback = strings.TrimSpace(fallback)
		if len(fallback) < 2 || fallback[0] != '\'' || fallback[len(fallback)-1] != '\'' {
			return part{}, 0
		}
		fallback = fallback[1 : len(fallback)-1]
		v.fallback = &fallback
	}
	return v, end + 1
}

// resolve puts values in the place of variables; false: one has none, or several,
// and the pattern matches nothing.
func (p pattern) resolve(c Context) (pattern, bool) {
	var out pattern
	for i, v := range p {
		if v.variable == "" {
			if out != nil {
				out = append(out, v)
			}
			continue
		}
		if out == nil {
			out = append(make(pattern, 0, len(p)), p[:i]...)
		}
		switch values := c[v.variable]; {
		case len(values) == 1:
			out = append(out, part{literal: values[0]})
		case len(values) == 0 && v.fallback != nil:
			out = append(out, part{literal: *v.fallback})
		default:
			return nil, false
		}
	}
	if out == nil {
		return p, true
	}
	return out, true
}

// match tells whether the whole text has the form; the pattern has no variables.
// It takes at most len(text) times len(p) steps.
func (p pattern) match(text string) bool {
	var retry pattern // what follows the latest star
	retryAt := ""
	starred := false
	for {
		if len(p) == 0 && text == "" {
			return true
		}
		ok := false
		if len(p) > 0 {
			switch head := p[0]; head.wildcard {
			case '*':
				p, starred = p[1:], true
				retry, retryAt = p, text
				continue
			case '?':
				if n := firstRune(text); n > 0 {
					p, text, ok = p[1:], text[n:], true
				}
			default:
				if rest, found := strings.CutPrefix(text, head.literal); found {
					p, text, ok = p[1:], rest, true
				}
			}
		}
		if ok {
			continue
		}
		n := firstRune(retryAt)
		if !starred || n == 0 {
			return false
		}
		retryAt = retryAt[n:]
		p, text = retry, retryAt
	}
}

func firstRune(s string) int {
	for i := range s {
		if i > 0 {
			return i
		}
	}
	return len(s)
}

// plain is the pattern without meaning in its wildcards.
func (p pattern) plain() string {
	var out strings.Builder
	for _, v := range p {
		out.WriteString(v.literal)
		if v.wildcard != 0 {
			out.WriteByte(v.wildcard)
		}
	}
	return out.String()
}

const arnSegments = 6

// resourcePattern matches resources: each segment of an ARN by itself, or
// everything.
type resourcePattern struct {
	all      bool
	segments [arnSegments]pattern
}

// compileResource reads a pattern of ARNs, or says why it cannot be one.
func compileResource(text string, variables bool) (r resourcePattern, reason string) {
	if text == "*" {
		return resourcePattern{all: true}, ""
	}
	segments := splitARN(text)
	if segments[0] != "arn" {
		return r, "want * or an ARN, such as arn:aws:drs:*:*:source-server/*"
	}
	if len(segments) < arnSegments && !strings.HasSuffix(text, "*") {
		return r, "an ARN has six segments, arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE"
	}
	for i := range r.segments {
		if i < len(segments) {
			r.segments[i] = compile(segments[i], variables)
		} else {
			r.segments[i] = pattern{{wildcard: '*'}}
		}
	}
	return r, ""
}

// splitARN cuts at the first five colons that are not within a variable.
func splitARN(text string) []string {
	var out []string
	start, inside := 0, false
	for i := range len(text) {
		switch c := text[i]; {
		case c == '$' && strings.HasPrefix(text[i:], "${"):
			inside = true
		case c == '}':
			inside = false
		case c == ':' && !inside && len(out) < arnSegments-1:
			out = append(out, text[start:i])
			start = i + 1
		}
	}
	return append(out, text[start:])
}

func (r resourcePattern) match(resource string, c Context) bool {
	if r.all {
		return true
	}
	segments := splitARN(resource)
	if len(segments) != arnSegments {
		return false
	}
	for i, p := range r.segments {
		p, ok := p.resolve(c)
		if !ok || !p.match(segments[i]) {
			return false
		}
	}
	return true
}
