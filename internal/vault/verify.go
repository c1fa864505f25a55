package vault

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
)

// VerifyOptions say what to look at, and how fast.
type VerifyOptions struct {
	// Share are the objects whose bytes are read; the zero one: all. Whether any is
	// absent that is needed is always looked at.
	Share Share
	// Rate bounds reading, in bytes per second; 0: it is not bounded.
	Rate int64
	// After goes on behind an object, where an earlier run was stopped: its Next.
	After string
	// Catalogue returns the point that a manifest of a server's main branch made, as
	// known outside the vault: a damaged manifest's own is named in it alone. The zero
	// value: it knows of none. May be nil.
	Catalogue func(ctx context.Context, server drs.SourceServerID, manifest uint64) (drs.RecoverySnapshotID, error)
	// Progress is told, by one goroutine at a time, how far it got; may be nil.
	Progress func(VerifyProgress)
}

// VerifyProgress is how far a verification got.
type VerifyProgress struct {
	Part           float64 // of all, 0 to 1
	Objects, Bytes int64   // checked
	Damaged        int
}

// Damage is an object that is not as it was written, or not there.
type Damage struct {
	Object string             `json:"object"`
	Server drs.SourceServerID `json:"server,omitempty"` // empty: of the vault as a whole
	Offset int64              `json:"offset"`           // in the object, in bytes
	Reason string             `json:"reason"`
	// Derived objects are made again by the vault and hurt no point.
	Derived bool `json:"derived"`
	// Points are the recovery points that cannot be read whole any more.
	Points []drs.RecoverySnapshotID `json:"points"`
	// PointsUnknown: it may hurt points that are not named, because there was no key,
	// or because their names were in the damaged object.
	PointsUnknown bool `json:"pointsUnknown,omitempty"`
}

// ServerVerdict says which points of a server are whole, as far as was looked.
type ServerVerdict struct {
	Server drs.SourceServerID       `json:"server"`
	Hurt   []drs.RecoverySnapshotID `json:"hurt"`
	Unhurt []drs.RecoverySnapshotID `json:"unhurt"`
	Err    string                   `json:"error,omitempty"` // why the points are not known
}

// VerifyReport is what a verification found.
type VerifyReport struct {
	Keyless bool            `json:"keyless"`
	Share   Share           `json:"share"`
	Objects int64           `json:"objects"` // read and checked
	Bytes   int64           `json:"bytes"`
	Damages []Damage        `json:"damages"`
	Servers []ServerVerdict `json:"servers"` // none without a key
	// Unknown are objects that no part of the vault put there; Unreferenced ones are
	// garbage, or belong to an epoch that is being written. At most 1000 are named.
	Unknown, Unreferenced           []string `json:"-"`
	UnknownCount, UnreferencedCount int64    `json:"-"`
	// Next is where to go on when the verification was stopped; empty: it is complete.
	Next string `json:"next,omitempty"`
}

// Sound tells whether nothing was found to be damaged.
func (r *VerifyReport) Sound() bool {
	for _, s := range r.Servers {
		if s.Err != "" {
			return false
		}
	}
	return len(r.Damages) == 0
}

const maxNamed = 1000

// verifyWorkers is how many objects are read at a time.
const verifyWorkers = 4

// Verify checks the objects of the vault in a store against everything that is known
// of them: checksums, authentication, the chain of manifests, the hash of each index,
// and whether each recovery point has all it is made of. It reads the store afresh,
// whatever this process has in memory; it changes nothing, and bears commits, folds
// and collections that go on meanwhile. Memory is bounded by the largest object but
// for one server's list of segments.
//
// When ctx ends the report holds what was found and where to go on, beside
// the error. An error of the store itself ends it, too.
func Verify(ctx context.Context, store blob.Store, keys KeyWrapper, options Options, opt VerifyOptions) (VerifyReport, error) {
	options.ReadOnly = true
	v, err := Open(ctx, store, keys, options)
	if err != nil {
		return VerifyReport{}, err
	}
	defer func() { _ = v.Close() }() // it only waits for what runs
	return newVerifier(v.store, v, opt).run(ctx)
}

// Scrub is Verify without a key: it checks all that is not encrypted, which is the
// checksum of every stored byte, and cannot tell which points damage hurts.
func Scrub(ctx context.Context, store blob.Store, opt VerifyOptions) (VerifyReport, error) {
	if _, err := readRoots(ctx, store); errors.Is(err, ErrNotVault) {
		return VerifyReport{}, err
	}
	return newVerifier(blob.ReadOnly(store), nil, opt).run(ctx)
}

type verifier struct {
	store blob.Store
	v     *Vault // nil: there is no key
	opt   VerifyOptions
	pace  *pace
	large sync.Mutex // held while an object is checked that takes much memory

	mu     sync.Mutex
	report VerifyReport        // guarded by mu
	found  map[string]*finding // by object, of the server at hand; guarded by mu
	failed int                 // objects that could not be read; guarded by mu
	part   float64             // guarded by mu
}

func newVerifier(store blob.Store, v *Vault, opt VerifyOptions) *verifier {
	if opt.Share == (Share{}) {
		opt.Share = Everything
	}
	return &verifier{
		store: store, v: v, opt: opt, pace: &pace{rate: opt.Rate}, found: map[string]*finding{},
		report: VerifyReport{Keyless: v == nil, Share: opt.Share, Damages: []Damage{}, Servers: []ServerVerdict{}},
	}
}

func (f *verifier) run(ctx context.Context) (VerifyReport, error) {
	err := f.all(ctx)
	if err != nil { // what was found before is told, too
		for _, n := range f.found {
			n.PointsUnknown = true
		}
		f.settle()
		return f.report, fmt.Errorf("verify vault: %w", err)
	}
	f.report.Next = ""
	return f.report, nil
}

const serversFolder = "servers/"

// all goes through the vault's own objects, then server by server.
func (f *verifier) all(ctx context.Context) error {
	top, err := f.store.List(ctx, "")
	if err != nil {
		return err
	}
	var own []string
	for _, name := range top {
		switch {
		case name == serversFolder:
		case strings.HasSuffix(name, "/"):
			below, err := walk(ctx, f.store, name)
			if err != nil {
				return err
			}
			own = append(own, below...)
		default:
			own = append(own, name)
		}
	}
	if !strings.HasPrefix(f.opt.After, serversFolder) {
		if err := f.objects(ctx, own, nil, 0, 0); err != nil {
			return err
		}
		f.settle()
	}
	listed, err := f.store.List(ctx, serversFolder)
	if err != nil {
		return err
	}
	for i, folder := range listed {
		done := float64(i) / float64(len(listed))
		if !strings.HasSuffix(folder, "/") {
			f.unknown(folder)
			continue
		}
		if strings.HasPrefix(f.opt.After, serversFolder) && folder < f.opt.After && !strings.HasPrefix(f.opt.After, folder) {
			continue // done by an earlier run
		}
		if err := f.server(ctx, folder, done, 1/float64(len(listed))); err != nil {
			return err
		}
		f.settle()
	}
	return nil
}

// objects checks those of the names that are in the share, some at a time. Done and
// weight say which part of all the work they are.
func (f *verifier) objects(ctx context.Context, names []string, refs *references, done, weight float64) error {
	const window = 64
	if strings.HasPrefix(f.opt.After, serversFolder) == (weight > 0) {
		names = names[sort.Search(len(names), func(i int) bool { return names[i] > f.opt.After }):]
	}
	for at := 0; at < len(names); at += window {
		some := names[at:min(at+window, len(names))]
		g, within := errgroup.WithContext(ctx)
		g.SetLimit(verifyWorkers)
		for _, name := range some {
			if !f.opt.Share.holds(name) {
				continue
			}
			g.Go(func() error { return f.object(within, name, refs) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		f.mu.Lock()
		f.report.Next = some[len(some)-1]
		f.part = done + weight*float64(at+len(some))/float64(len(names))
		f.mu.Unlock()
		f.tell()
	}
	return nil
}

func (f *verifier) tell() {
	if f.opt.Progress == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opt.Progress(VerifyProgress{f.part, f.report.Objects, f.report.Bytes, len(f.report.Damages) + len(f.found)})
}

func (f *verifier) unknown(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.report.UnknownCount++; len(f.report.Unknown) < maxNamed {
		f.report.Unknown = append(f.report.Unknown, name)
	}
}

func (f *verifier) unreferenced(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.report.UnreferencedCount++; len(f.report.Unreferenced) < maxNamed {
		f.report.Unreferenced = append(f.report.Unreferenced, name)
	}
}
