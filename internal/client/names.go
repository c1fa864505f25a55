package client

import (
	"context"
	"fmt"
	"strings"
)

// Name is what to call the server in front of people.
func (s Server) Name() string {
	if s.Hostname != "" {
		return s.Hostname
	}
	return s.ID
}

// FindServers returns the servers that the names mean, each once, in the order
// of the names: IDs, first parts of IDs, hostnames or domain names. *Refusal
// when a name means none or several.
func (c *Client) FindServers(ctx context.Context, names []string) ([]Server, error) {
	all, err := c.Servers(ctx)
	if err != nil {
		return nil, err
	}
	return pick(names, all, "source server", "servers", "s-", serverNames)
}

// FindServer is FindServers for one name.
func (c *Client) FindServer(ctx context.Context, name string) (Server, error) {
	found, err := c.FindServers(ctx, []string{name})
	if err != nil {
		return Server{}, err
	}
	return found[0], nil
}

func serverNames(s Server) (id string, names []string) { return s.ID, []string{s.Hostname, s.FQDN} }

// pick matches names with things: an ID beats a hostname, and a hostname the
// first part of an ID.
func pick[T any](names []string, all []T, what, verb, prefix string, namesOf func(T) (string, []string)) ([]T, error) {
	var picked []T
	seen := map[string]bool{}
	for _, name := range names {
		found := match(name, all, prefix, namesOf)
		switch len(found) {
		case 0:
			return nil, refuse("there is no %s %q; `lifeboat %s` lists those there are", what, name, verb)
		case 1:
			if id, _ := namesOf(found[0]); !seen[id] {
				seen[id] = true
				picked = append(picked, found[0])
			}
		default:
			var candidates []string
			for _, t := range found {
				id, names := namesOf(t)
				candidates = append(candidates, fmt.Sprintf("%s (%s)", id, names[0]))
			}
			return nil, ambiguous(what, name, candidates)
		}
	}
	return picked, nil
}

func match[T any](name string, all []T, prefix string, namesOf func(T) (string, []string)) []T {
	var byName, byPart []T
	for _, t := range all {
		id, names := namesOf(t)
		if id == name {
			return []T{t}
		}
		for _, n := range names {
			if n != "" && strings.EqualFold(n, name) {
				byName = append(byName, t)
				break
			}
		}
		if isPart(name, prefix) && strings.HasPrefix(id, name) {
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
