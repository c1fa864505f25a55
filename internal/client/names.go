package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Name is what to call the server in front of people.
func (s Server) Name() string {
	if s.Hostname != "" {
		return Printable(s.Hostname)
	}
	return s.ID
}

// Printable replaces what could steer a terminal or break a table: what machines
// call themselves is foreign text.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf) {
			return '?'
		}
		return r
	}, s)
}

// FindServers returns the servers that the names mean, each once, in the order
// of the names: IDs, first parts of IDs, hostnames or domain names. *Refusal
// when a name means none or several.
func (c *Client) FindServers(ctx context.Context, names []string) ([]Server, error) {
	all, err := c.Servers(ctx)
	if err != nil {
		return nil, err
	}
	return pick(names, all, "source server", "servers", "s-", func(s Server) called {
		return called{s.ID, s.Hostname, []string{s.Hostname, s.FQDN}}
	})
}

// FindServer is FindServers for one name.
func (c *Client) FindServer(ctx context.Context, name string) (Server, error) {
	found, err := c.FindServers(ctx, []string{name})
	if err != nil {
		return Server{}, err
	}
	return found[0], nil
}

// called is how a thing can be named: by its ID, the first part of that, or one
// of its names. The label tells it from others of the same name.
type called struct {
	id, label string
	names     []string
}

// pick matches names with things: an ID beats a hostname, and a hostname the
// first part of an ID.
func pick[T any](names []string, all []T, what, verb, prefix string, of func(T) called) ([]T, error) {
	var picked []T
	seen := map[string]bool{}
	for _, name := range names {
		found := match(name, all, prefix, of)
		switch len(found) {
		case 0:
			return nil, refuse("there is no %s %q; `lifeboat %s` lists those there are", what, name, verb)
		case 1:
			if id := of(found[0]).id; !seen[id] {
				seen[id] = true
				picked = append(picked, found[0])
			}
		default:
			var candidates []string
			for _, t := range found {
				candidates = append(candidates, fmt.Sprintf("%s (%s)", of(t).id, Printable(of(t).label)))
			}
			return nil, ambiguous(what, name, candidates)
		}
	}
	return picked, nil
}

func match[T any](name string, all []T, prefix string, of func(T) called) []T {
	var byName, byPart []T
	for _, t := range all {
		c := of(t)
		switch {
		case c.id == name:
			return []T{t}
		case slices.ContainsFunc(c.names, func(n string) bool { return n != "" && strings.EqualFold(n, name) }):
			byName = append(byName, t)
		case isPart(name, prefix) && strings.HasPrefix(c.id, name):
			byPart = append(byPart, t)
		}
	}
	if len(byName) > 0 {
		return byName
	}
	return byPart
}

// isPart tells whether text says more of an ID than its prefix.
func isPart(text, prefix string) bool {
	return strings.HasPrefix(text, prefix) && len(text) > len(prefix)
}

// ambiguous refuses a name that means several things.
func ambiguous(what, name string, candidates []string) *Refusal {
	const most = 10
	more := ""
	if len(candidates) > most {
		candidates, more = candidates[:most], fmt.Sprintf("\n  and %d more", len(candidates)-most)
	}
	return refuse("%q means more than one %s; name one by its ID:\n  %s%s", name, what, strings.Join(candidates, "\n  "), more)
}
