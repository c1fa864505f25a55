package vault

// Small makes all limits so small that a few epochs reach every mechanism. Points grow old by
// their own times, as they are made faster than time goes by.
func (o Options) Small() Options {
	o.limits = limits{segmentBytes: 96 << 10, inlineBytes: 24 << 10, segmentFrames: 8, pack: 6, fanout: 3, foldBytes: 300 << 10, foldCount: 8, restate: 6, taken: true}
	return o
}

// NoInline makes every segment an object of its own.
func (o Options) NoInline() Options {
	o.limits.setDefaults()
	o.limits.inlineBytes = 0
	return o
}

// Clocked makes points grow old by the vault's clock, also after Small.
func (o Options) Clocked() Options {
	o.limits.taken = false
	return o
}

// WaitTasks waits until the background has made all derived data.
func (v *Vault) WaitTasks() { v.tasks.wait() }

// Records returns how many map records the volume has.
func (r *VolumeReader) Records() int { return len(r.records(r.image.view.Load())) }

// Seed is the digest seed of the server being written.
func (e *Epoch) Seed() uint64 { return e.tip.head.DigestSeed }

// Volumes1 is the size of the only volume, or 0.
func (h Head) Volumes1() int64 {
	if len(h.Volumes) == 0 {
		return 0
	}
	return h.Volumes[0].Size
}

// TinySegments closes a segment after 128 frames, as 8 MiB of incompressible ones do.
func (o Options) TinySegments() Options {
	o.limits.setDefaults()
	o.limits.segmentFrames = 128
	o.limits.inlineBytes = 4 << 10
	return o
}

// Golden are limits that put every kind of object into few bytes. Changing the fanout
// makes the golden runs stale.
func (o Options) Golden() Options {
	o.limits = limits{segmentBytes: 64 << 10, inlineBytes: 4 << 10, segmentFrames: 8, pack: 4, fanout: 3, foldBytes: 300 << 10, foldCount: 8, restate: 6, taken: true}
	return o
}

// DecodeTrace and EncodeTrace are for fuzzing.
var (
	DecodeTrace = decodeTrace
	EncodeTrace = encodeTrace
)

// StateBytes is about what the lists of segments and points take.
func (v *Vault) StateBytes() int64 {
	v.states.mu.Lock()
	defer v.states.mu.Unlock()
	return v.states.used
}
