package agent

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// AllDisks, as a disk's name, means all of the machine's.
const AllDisks = "all"

// choice is a disk that the agent is to replicate, and where it is now.
type choice struct {
	memoryDisk
	lost string // why it is not there; empty: it is, at Name
}

// machineDisks is how the disks of the machine look now.
type machineDisks struct {
	whole []string // paths of all whole disks, the boot disk first; nil: not asked
	// identities tells what a path's disk is called by itself, the best first. Copies
	// share some.
	identities func(path string) []string
}

// choose finds the disks to replicate: those that the user names, or all, or those
// that are remembered, each by what it is. A disk that is remembered and cannot be found
// is a choice that is lost, so it is not forgotten.
//
// named is empty, or AllDisks, or paths. In a machine of which all is replicated
// more than what is remembered is a new disk, and not for choose to take up.
func choose(named []string, m memory, now machineDisks) (choices []choice, all bool, err error) {
	all = len(named) == 0 && (m.All || len(m.Disks) == 0) || slices.Equal(named, []string{AllDisks})
	if !all && slices.Contains(named, AllDisks) {
		return nil, false, fmt.Errorf("--disk %s stands alone: it names all of the machine's disks", AllDisks)
	}
	f := newFinder(named, m, now)
	switch {
	case all && len(m.Disks) == 0:
		for _, path := range now.whole {
			choices = append(choices, choice{memoryDisk: memoryDisk{Name: path, Identity: f.identity(path)}})
		}
	case all || len(named) == 0:
		wanted := slices.Clone(m.Disks)
		for i := range wanted {
			if all {
				wanted[i].Arg = ""
			}
		}
		choices = f.findAll(wanted)
	default:
		var wanted []memoryDisk
		for _, path := range named {
			if path, err = filepath.Abs(path); err != nil {
				return nil, false, fmt.Errorf("disk %s: %w", path, err)
			}
			if slices.ContainsFunc(wanted, func(d memoryDisk) bool { return d.Arg == path }) {
				return nil, false, fmt.Errorf("disk %s is named twice", path)
			}
			d := memoryDisk{Arg: path, Name: path}
			if i := slices.IndexFunc(m.Disks, func(d memoryDisk) bool { return d.Arg == path || d.Arg == "" && d.Name == path }); i >= 0 {
				d.Identity, d.Bytes, d.Left = m.Disks[i].Identity, m.Disks[i].Bytes, m.Disks[i].Left
				if m.Disks[i].Arg == "" {
					d.Name = m.Disks[i].Name
				}
			}
			wanted = append(wanted, d)
		}
		choices = f.findAll(wanted)
		for i, c := range choices {
			if c.Bytes == 0 {
				choices[i].lost = "" // never seen: opening it tells what is wrong
			}
		}
	}
	for i, c := range choices {
		if slices.ContainsFunc(choices[:i], func(other choice) bool { return other.lost == "" && c.lost == "" && other.Name == c.Name }) {
			return nil, false, fmt.Errorf("disk %s is named twice: %s is it, too", c.Name, c.Arg)
		}
	}
	return choices, all, nil
}

// finder looks for remembered disks among those there are.
type finder struct {
	memory memory
	paths  []string            // of all disks that may be meant, each once
	known  map[string][]string // what the disk at each of them is called by itself
	taken  map[string]bool     // paths that are found
}

func newFinder(named []string, m memory, now machineDisks) *finder {
	f := &finder{memory: m, known: map[string][]string{}, taken: map[string]bool{}}
	var paths []string
	for _, path := range named {
		if abs, err := filepath.Abs(path); err == nil && path != AllDisks {
			paths = append(paths, abs)
		}
	}
	for _, d := range m.Disks {
		paths = append(paths, d.Arg, d.Name)
	}
	seen := map[string]bool{}
	for _, path := range append(paths, now.whole...) {
		real, err := filepath.EvalSymlinks(path)
		if path == "" || err != nil || seen[real] { // a link and what it leads to are one disk
			continue
		}
		seen[real] = true
		f.paths = append(f.paths, path)
		f.known[path] = now.identities(path)
	}
	return f
}

// findAll finds disks, those first that can be told from others.
func (f *finder) findAll(wanted []memoryDisk) []choice {
	choices := make([]choice, len(wanted))
	for _, known := range []bool{true, false} {
		for i, d := range wanted {
			if (d.Identity != "") == known {
				choices[i] = f.find(d)
			}
		}
	}
	return choices
}

// find tells where a disk is now: the path that claims its identity; else its own
// path, if the disk there is none of the others that are remembered. Of several that
// claim the identity, as copies do, it is the one at its own path.
func (f *finder) find(d memoryDisk) choice {
	claims := f.claims(d.Identity)
	switch {
	case len(claims) == 1:
		d.Name = claims[0]
	case len(claims) > 1 && !slices.Contains(claims, d.Name):
		return choice{d, fmt.Sprintf("%s all are %s by what is written on them, and none has the name %s: give each copy an identity of its own "+
			"(sgdisk -G, or a serial number)", strings.Join(claims, " and "), d.Identity, d.Name)}
	case len(claims) == 0 && (f.taken[d.Name] || f.another(d)):
		return choice{d, fmt.Sprintf("the disk that is called %s now is another one, and none is it by what is written on it (%s)", d.Name, cmp.Or(d.Identity, "nothing told it from others"))}
	}
	if _, err := os.Stat(d.Name); err != nil {
		return choice{d, "it is not there"}
	}
	f.taken[d.Name] = true
	if own := f.identity(d.Name); own != "" {
		d.Identity = own
	}
	return choice{memoryDisk: d}
}

// claims lists the paths whose disk has the identity and is not found yet.
func (f *finder) claims(identity string) (paths []string) {
	for _, path := range f.paths {
		if identity != "" && !f.taken[path] && slices.Contains(f.known[path], identity) {
			paths = append(paths, path)
		}
	}
	return paths
}

// another tells whether the disk that has d's name now is one that is remembered
// as another than d.
func (f *finder) another(d memoryDisk) bool {
	for _, identity := range f.known[d.Name] {
		for _, other := range f.memory.Disks {
			if other.Identity == identity && other.Identity != d.Identity {
				return true
			}
		}
	}
	return false
}

// identity is the preferred one of the disk at the path that no other disk claims.
func (f *finder) identity(path string) string {
	for _, identity := range f.known[path] {
		if !slices.ContainsFunc(f.paths, func(other string) bool {
			return other != path && slices.Contains(f.known[other], identity)
		}) {
			return identity
		}
	}
	return ""
}
