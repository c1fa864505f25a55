package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

// Options tune a vault in this process.
type Options struct {
	Logger     *slog.Logger // nil: nothing is logged
	CacheBytes int64        // decoded frames kept in memory; 0: 64 MiB
	// Plain makes Create store without encryption, and Open accept such a vault, which
	// it refuses otherwise: whoever can write the store could have forged it. The
	// key wrapper may be nil then.
	Plain bool
	// StateBytes bounds, about, the lists of segments and points kept in memory of
	// branches that nobody uses at the moment; 0: 64 MiB.
	StateBytes int64
	// Clocks are the machine's; nil: those of this one. Points grow old and locks end by the
	// vault's own clock, which goes as fast as the machine runs, also through restarts of
	// this process, whatever the time of day is set to. Of the time in which a
	// machine was off, or another one takes over, no more than five minutes are counted.
	Clocks Clocks
	// Now takes the place of the vault's clock.
	Now func() time.Time
	// Retire is asked before Maintain drops recovery points: it returns those that may go,
	// having seen to it that nobody can ask for them any more. The others stay, as
	// if a branch began at them. It may be asked again about the same points; nil: all may go.
	Retire func(ctx context.Context, server drs.SourceServerID, points []drs.RecoverySnapshotID) ([]drs.RecoverySnapshotID, error)
	// ReadOnly keeps the vault from changing anything in the store, derived data
	// included; what would, is blob.ErrReadOnly.
	ReadOnly bool
	// Far tells that each request to the store takes a network's time: more of them are
	// kept under way.
	Far bool
	// Segments reads the bytes of segments by way of a cache; nil: from the store.
	Segments SegmentReader

	limits limits
}

// limits are the sizes that tests make small.
type limits struct {
	segmentBytes  int // a segment is closed at this size
	inlineBytes   int // the last segment of an epoch lies in the manifest up to this size
	segmentFrames int
	pack          uint64 // manifests per pack
	fanout        int    // segments per map run, and runs per larger run
	foldBytes     int64  // rewritten by one call of Maintain, about
	foldCount     int    // loose sequences that are folded although more will follow soon
	restate       uint64 // manifests between checkpoints, at least
	taken         bool   // a point is taken to be committed at its time, whatever the clock says
}

func (l *limits) setDefaults() {
	if *l == (limits{}) {
		*l = limits{segmentBytes: 8 << 20, inlineBytes: 1 << 20, segmentFrames: 4096, pack: 256, fanout: 32,
			foldBytes: 256 << 20, foldCount: 1024, restate: 256}
	}
}

// uploads is how many full segments may be on their way to the store at a time,
// of all epochs together.
const uploads = 4

// Vault is an open vault. Safe for concurrent use.
type Vault struct {
	store    blob.Store
	retire   func(context.Context, drs.SourceServerID, []drs.RecoverySnapshotID) ([]drs.RecoverySnapshotID, error) // may be nil
	readOnly bool                                                                                                  // no derived data is made
	keys     KeyWrapper
	log      *slog.Logger
	id       [16]byte
	cipher   seal.Cipher // for new objects
	own      seal.Key    // for objects of the vault as a whole
	limits   limits
	distance distance
	segments SegmentReader // the store, or a cache of it
	prefetch int64         // how many bytes of a boot trace are loaded into memory at most
	prewarm  bool          // reading stored bytes makes the next read of them faster

	uploads chan struct{} // a token per segment under way
	buffers buffers
	frames  *cache[frameKey, []byte]
	indexes *cache[segment.ID, *segment.Index]
	states  stateList
	now     func() time.Time // the vault's clock
	clock   *clock           // nil when Options.Now takes its place

	ctx    context.Context //nolint:containedctx // ends at Close: the scope of the background tasks
	cancel context.CancelFunc
	tasks  taskList

	forking sync.Mutex // held while a branch is made or deleted, and while holds are released
	tending sync.Mutex // held while a server is maintained or collected

	mu       sync.Mutex
	dataKeys map[drs.SourceServerID]seal.Key // guarded by mu
	branches map[branchID]*branch            // guarded by mu
	images   map[*Image]struct{}             // the open ones; guarded by mu
	tended   map[drs.SourceServerID]int      // calls of Maintain that found something to do; guarded by mu
	suspects map[string]bool                 // what the last Maintain saw and took for unfinished; guarded by tending
}

type branchID struct {
	server drs.SourceServerID
	name   string
}

// Create makes a new vault in an empty store. ErrExists: there is a vault already.
func Create(ctx context.Context, store blob.Store, keys KeyWrapper, opt Options) (*Vault, error) {
	there, err := store.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("create vault: %w", err)
	}
	for _, name := range there {
		if name == rootFolder {
			return nil, fmt.Errorf("create vault: %w", ErrExists)
		}
	}
	if len(there) > 0 {
		return nil, fmt.Errorf("create vault: the store holds other objects, such as %s: choose an empty one", there[0])
	}
	r := root{cipher: seal.AESGCM, number: 1}
	rand.Read(r.id[:])
	if opt.Plain {
		r.cipher = seal.None
	} else {
		if keys == nil {
			return nil, errors.New("create vault: a master key is needed unless the vault is to be plain")
		}
		if r.own, err = wrapKey(ctx, keys, seal.NewKey(), r.binding()); err != nil {
			return nil, fmt.Errorf("create vault: %w", err)
		}
	}
	err = r.put(ctx, store)
	if errors.Is(err, blob.ErrExists) {
		return nil, fmt.Errorf("create vault: %w", ErrExists)
	}
	if err != nil {
		return nil, fmt.Errorf("create vault: %w", err)
	}
	return Open(ctx, store, keys, opt)
}

// Open opens the vault in a store. ErrNotVault: there is none, and nothing was
// changed. ErrWrongKey: keys is not its master key. The vault must be closed
// before the store is.
func Open(ctx context.Context, store blob.Store, keys KeyWrapper, opt Options) (*Vault, error) {
	r, err := readRoot(ctx, store, keys)
	if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	if r.cipher == seal.None && !opt.Plain {
		return nil, fmt.Errorf("open vault: it is not encrypted, but an encrypted one is expected: check the path, or allow a plain vault: %w", ErrWrongKey)
	}
	own, err := r.open(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.ReadOnly {
		store = blob.ReadOnly(store)
	}
	if opt.CacheBytes <= 0 {
		opt.CacheBytes = 64 << 20
	}
	if opt.StateBytes <= 0 {
		opt.StateBytes = 64 << 20
	}
	opt.limits.setDefaults()
	v := &Vault{
		store: store, readOnly: opt.ReadOnly, retire: opt.Retire, keys: keys, log: opt.Logger, id: r.id, cipher: r.cipher, own: own, limits: opt.limits,
		uploads:  make(chan struct{}, uploads),
		buffers:  buffers{full: opt.limits.fullBuffer()},
		frames:   newCache[frameKey, []byte](opt.CacheBytes, freeFrame),
		indexes:  newCache[segment.ID, *segment.Index](max(opt.CacheBytes/4, 1<<20), nil),
		dataKeys: map[drs.SourceServerID]seal.Key{},
		branches: map[branchID]*branch{},
		images:   map[*Image]struct{}{},
		tended:   map[drs.SourceServerID]int{},
		suspects: map[string]bool{},
		states:   stateList{limit: opt.StateBytes},
		now:      opt.Now,
	}
	if opt.Clocks == nil {
		opt.Clocks = newMachineClocks()
	}
	if v.now == nil {
		if err := v.startClock(ctx, opt.Clocks); err != nil {
			return nil, fmt.Errorf("open vault: %w", err)
		}
		v.now = v.clock.now
	}
	v.distance, v.segments = near, uncached{store}
	if opt.Far {
		v.distance = far
	}
	if opt.Segments != nil {
		v.segments = opt.Segments
	}
	// What memory does not hold, the cache or the system does.
	v.prefetch, v.prewarm = opt.CacheBytes/2, opt.Segments != nil || !opt.Far
	v.ctx, v.cancel = context.WithCancel(context.Background())
	return v, nil
}

// Close ends the background tasks and waits for them. What was committed stays;
// open epochs are lost. Images must be closed before.
func (v *Vault) Close() error {
	v.cancel()
	v.tasks.wait()
	return nil
}

// ID tells this vault from all others.
func (v *Vault) ID() [16]byte { return v.id }
