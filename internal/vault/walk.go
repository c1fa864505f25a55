package vault

import (
	"context"
	"strings"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
)

// walk returns the names of all objects below a folder, sorted. A folder that cannot
// be the store's own, such as lost+found/, is returned as it is: nobody may look into it.
func walk(ctx context.Context, store blob.Store, folder string) ([]string, error) {
	if blob.CheckName(strings.TrimSuffix(folder, "/")) != nil {
		return []string{folder}, nil //nolint:nilerr // it is shown, and what it is to be is not a failure
	}
	listed, err := store.List(ctx, folder)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range listed {
		if !strings.HasSuffix(name, "/") {
			out = append(out, name)
			continue
		}
		below, err := walk(ctx, store, name)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	return out, nil
}

// objectKind is what an object is, by the end of its name.
type objectKind string

const (
	kindOfRoot       objectKind = "root"
	kindOfKey        objectKind = "key"
	kindOfManifest   objectKind = "manifest"
	kindOfCheckpoint objectKind = "checkpoint"
	kindOfSegment    objectKind = "segment"
	kindOfRun        objectKind = "run"
	kindOfRecord     objectKind = "record"
	kindOfOwner      objectKind = "owner"
	kindOfClock      objectKind = "clock"
	kindOfPack       objectKind = "pack"
	kindOfTrace      objectKind = "trace"
	kindUnknown      objectKind = "unknown"
)

// sealedAs is how the envelope of each kind begins. Segments have none.
var sealedAs = map[objectKind]envelope.Kind{
	kindOfRoot:       envelope.Root,
	kindOfKey:        envelope.ServerKey,
	kindOfManifest:   envelope.Manifest,
	kindOfCheckpoint: envelope.Checkpoint,
	kindOfRun:        envelope.MapRun,
	kindOfRecord:     envelope.Record,
	kindOfOwner:      envelope.Owner,
	kindOfClock:      envelope.Clock,
	kindOfPack:       envelope.Pack,
	kindOfTrace:      envelope.Trace,
}

// derived tells whether the vault makes such objects again by itself.
func (k objectKind) derived() bool { return k == kindOfPack || k == kindOfRun || k == kindOfTrace }

// place is what an object's name tells.
type place struct {
	kind   objectKind
	server drs.SourceServerID // empty: of the vault as a whole
	branch string             // of manifests and checkpoints
	number uint64             // of what is numbered
}

// placeOf reads a name.
func placeOf(name string) place {
	parts := strings.Split(name, "/")
	base := parts[len(parts)-1]
	_, suffix, _ := strings.Cut(base, ".")
	p := place{kind: kindUnknown}
	if len(parts) > 1 && (parts[0] == "servers" || parts[0] == "keys") {
		id, err := drs.ParseSourceServerID(parts[1])
		if err != nil {
			return p
		}
		p.server = id
	}
	if n := numbered([]string{name}, "."+suffix); len(n) == 1 {
		p.number = n[0]
	}
	kind := objectKind(suffix)
	inServer := func(folder string, n int) bool { return len(parts) == n && parts[0] == "servers" && parts[2] == folder }
	known := false
	switch kind {
	case kindOfRoot:
		known = len(parts) == 2 && parts[0] == "root" && p.number > 0
	case kindOfKey:
		known = len(parts) == 3 && parts[0] == "keys" && p.number > 0
	case kindOfManifest, kindOfCheckpoint, kindOfPack:
		known = inServer("branches", 5) && p.number > 0
		if known {
			p.branch = parts[3]
		}
	case kindOfRecord:
		known = (inServer("records", 4) || len(parts) == 2 && parts[0] == "records") && p.number > 0
	case kindOfTrace:
		known = inServer("traces", 4) && p.number > 0
	case kindOfOwner:
		known = len(parts) == 2 && parts[0] == "owners" && p.number > 0
	case kindOfClock:
		known = len(parts) == 2 && parts[0] == "clocks" && p.number > 0
	case kindOfSegment:
		known = inServer("segments", 4)
	case kindOfRun:
		known = inServer("maps", 4)
	}
	if known {
		p.kind = kind
	}
	return p
}
