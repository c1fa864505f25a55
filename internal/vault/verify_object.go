package vault

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

// finding is damage while it is being looked into.
type finding struct {
	Damage
	segment *segmentRef // the segment that it makes unreadable, if any
	frames  []int       // of the segment that are damaged; nil: all, empty: none
	per     int         // positions per frame
	absent  bool        // the object is not there, although something needs it
}

const (
	// largeEnvelope is from when on envelopes are checked one at a time.
	largeEnvelope = 16 << 20
	// unreadable is how many objects in all may fail to be read before the store
	// itself is held to be away.
	unreadable = 16
)

// object reads and checks one object. It returns only what must end everything.
func (f *verifier) object(ctx context.Context, name string, refs *references) error {
	at := placeOf(name)
	if at.kind == kindUnknown {
		f.unknown(name)
		return nil
	}
	err := f.check(ctx, name, at, refs)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, blob.ErrAbsent) {
		return nil // collected since it was listed; what needs it is looked for elsewhere
	}
	f.mu.Lock()
	f.report.Objects++
	f.mu.Unlock()
	return f.note(err, finding{Damage: Damage{Object: name, Server: at.server, Derived: refs.derived(name, at.kind)}})
}

// note keeps what an error tells about an object.
func (f *verifier) note(err error, n finding) error {
	if err == nil {
		return nil
	}
	var corrupt *CorruptError
	switch {
	case errors.As(err, &corrupt):
		n.Offset, n.Reason = corrupt.Offset, corrupt.Reason
		if corrupt.Object != n.Object {
			n.Reason = corrupt.Error()
		}
	case errors.Is(err, ErrNewerFormat):
		n.Reason, n.PointsUnknown = "cannot be checked: "+ErrNewerFormat.Error(), n.segment == nil
	case errors.Is(err, ErrWrongKey):
		return err
	default:
		// A sector that cannot be read is damage like any other; a store that does
		// not answer is not.
		f.mu.Lock()
		f.failed++
		away := f.failed > unreadable
		f.mu.Unlock()
		if away {
			return err
		}
		n.Reason = "cannot be read: " + err.Error()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if before := f.found[n.Object]; before != nil {
		if n.segment != nil && (before.segment == nil || n.frames == nil) {
			before.segment, before.frames, before.per = n.segment, n.frames, n.per
		}
		before.absent = before.absent || n.absent
		before.PointsUnknown = before.PointsUnknown || n.PointsUnknown
		before.Points = union(before.Points, n.Points)
		return nil
	}
	f.found[n.Object] = &n
	return nil
}

// union returns a with what b has more.
func union[T comparable](a, b []T) []T {
	there := make(map[T]bool, len(a)+len(b))
	for _, x := range a {
		there[x] = true
	}
	for _, x := range b {
		if !there[x] {
			there[x] = true
			a = append(a, x)
		}
	}
	return a
}

// check reads an object whole and checks what can be known of it.
func (f *verifier) check(ctx context.Context, name string, at place, refs *references) error {
	size, err := f.store.Size(ctx, name)
	if err != nil {
		return err
	}
	if at.kind == kindOfSegment {
		return f.segment(ctx, name, at, 0, size, refs.segmentNamed(name))
	}
	attached, err := f.envelope(ctx, name, at, size, refs)
	ref := refs.inlineIn(at)
	if damaged(err) && ref != nil {
		// The segment that it carries may be whole all the same.
		if err := f.note(err, finding{Damage: Damage{Object: name, Server: at.server}}); err != nil {
			return err
		}
		return f.segment(ctx, name, at, ref.offset, ref.length, ref)
	}
	if err != nil || attached == 0 {
		return err
	}
	return f.segment(ctx, name, at, size-attached, attached, ref)
}

// envelope checks an object's envelope, and returns how many bytes follow it.
func (f *verifier) envelope(ctx context.Context, name string, at place, size int64, refs *references) (attached int64, err error) {
	kind := sealedAs[at.kind]
	head := make([]byte, min(size, firstRead))
	if err := f.read(ctx, name, head, 0); err != nil {
		return 0, err
	}
	h, length, err := envelope.DecodeHeader(name, kind, head)
	if err != nil {
		return 0, err
	}
	if size < length || uint64(size-length) != h.Attached {
		return 0, &CorruptError{Object: name, Offset: min(size, length), Reason: fmt.Sprintf("it has %d bytes, want %d", size, uint64(length)+h.Attached)}
	}
	if length > largeEnvelope {
		f.large.Lock()
		defer f.large.Unlock()
	}
	b := head[:min(int64(len(head)), length)]
	if rest := length - int64(len(b)); rest > 0 {
		b = append(b, make([]byte, rest)...)
		if err := f.read(ctx, name, b[len(head):], int64(len(head))); err != nil {
			return 0, err
		}
	}
	if h.Number != at.number && at.kind != kindOfRun || h.Server != string(at.server) || h.Branch != at.branch && at.kind != kindOfRoot {
		return 0, &CorruptError{Object: name, Offset: 16, Reason: fmt.Sprintf("swapped: it is number %d of %s%s", h.Number, h.Server, h.Branch)}
	}
	if is := runName(at.server, int(h.Number), h.Link); at.kind == kindOfRun && is != name {
		return 0, &CorruptError{Object: name, Offset: 16, Reason: "swapped: it is " + is}
	}
	key, known := f.key(at, refs)
	if !known {
		_, _, err := envelope.Check(name, kind, b)
		return int64(h.Attached), err
	}
	if h.Cipher != f.v.cipher {
		return 0, &CorruptError{Object: name, Offset: 10, Reason: "forged: it is not encrypted as this vault is"}
	}
	env, err := envelope.Decode(name, kind, b, key)
	if err != nil {
		return 0, err
	}
	if err := f.body(ctx, name, at, env, refs); err != nil {
		return 0, err
	}
	return int64(h.Attached), nil
}

// key is what an object's envelope is sealed with, when it is known and opening it with that
// tells anything: roots and keys are opened before all else.
func (f *verifier) key(at place, refs *references) (key seal.Key, known bool) {
	switch {
	case f.v == nil || at.kind == kindOfRoot || at.kind == kindOfKey:
		return key, false
	case at.server == "": // a document about the vault as a whole
		return f.v.own, true
	case refs == nil:
		return key, false
	}
	return refs.key, true
}

// body checks what an opened envelope says, as far as it follows from others.
func (f *verifier) body(ctx context.Context, name string, at place, env *envelope.Envelope, refs *references) error {
	var err error
	switch at.kind {
	case kindOfManifest:
		if _, err = decodeEdits(env.Body); err == nil {
			err = f.follows(ctx, name, at, env, refs.key)
		}
	case kindOfCheckpoint:
		_, err = decodeEdits(env.Body)
	case kindOfPack:
		_, err = decodePack(env.Body)
	case kindOfRun:
		_, err = decodeRun(env.Body)
	}
	if err == nil || errors.Is(err, ErrNewerFormat) || damaged(err) || errors.Is(err, context.Canceled) {
		return err
	}
	return &CorruptError{Object: name, Offset: envelope.HeaderSize, Reason: err.Error()}
}

// follows checks that a manifest is linked to the one before it, if that is there
// and sound. When it is not, that is found elsewhere.
func (f *verifier) follows(ctx context.Context, name string, at place, env *envelope.Envelope, key seal.Key) error {
	before, err := readEnvelope(ctx, f.store, manifestName(at.server, at.branch, at.number-1), envelope.Manifest, key)
	if err != nil || before.Hash == env.Link {
		return ctx.Err()
	}
	return &CorruptError{Object: name, Offset: 112, Reason: "broken chain: it does not follow the manifest before it"}
}

// segment checks a segment that lies in an object from an offset on. With ref, what
// the vault knows of it, its index must be the committed one and its frames open.
func (f *verifier) segment(ctx context.Context, name string, at place, offset, length int64, ref *segmentRef) error {
	found := finding{Damage: Damage{Object: name, Server: at.server}, segment: ref}
	read := func(p []byte, off int64) error { return f.read(ctx, name, p, offset+off) }
	var ix *segment.Index
	if ref != nil {
		if offset+length != ref.offset+ref.length { // when there is more than there should be, all is there all the same
			more := finding{Damage: found.Damage, segment: ref, frames: []int{}}
			err := &CorruptError{Object: name, Offset: offset, Reason: fmt.Sprintf("the segment ends at byte %d, want %d", offset+length, ref.offset+ref.length)}
			if err := f.note(err, more); err != nil {
				return err
			}
		}
		offset, length = ref.offset, ref.length
		key, err := f.v.dataKey(ctx, at.server)
		if err != nil {
			return err
		}
		if ix, err = f.v.readIndex(ctx, at.server, key, ref); err != nil {
			if _, gone := f.store.Size(ctx, name); errors.Is(gone, blob.ErrAbsent) {
				return gone
			}
			return f.note(err, found)
		}
		ix.Volumes, ix.Digests = nil, nil
		found.per = ix.Header.FrameBlocks
	} else if at.kind == kindOfSegment && f.v != nil {
		f.unreferenced(name)
	}
	if f.v == nil && at.kind == kindOfSegment {
		if err := lone(name, length, read); err != nil {
			return err
		}
	}
	bad, errs, err := segment.Scan(name, length, read, ix)
	if errors.Is(err, blob.ErrAbsent) {
		return err
	}
	if err == nil && len(bad) > 0 {
		found.frames, err = bad, errs[0]
		if bad[0] == segment.InHeader {
			found.frames = bad[1:] // not nil: that would be all
		}
	}
	var corrupt *CorruptError
	if errors.As(err, &corrupt) { // the codec counts from the segment's begin
		moved := *corrupt
		moved.Offset += offset
		if len(bad) > 1 {
			moved.Reason += fmt.Sprintf(", and so are %d more", len(bad)-1)
		}
		err = &moved
	}
	return f.note(err, found)
}

// lone checks that a segment, of which nothing else is known, is the one it is named after. A
// header that is damaged is for a scan to tell.
func lone(name string, length int64, read func(p []byte, off int64) error) error {
	head := make([]byte, min(length, segment.HeaderSize))
	if err := read(head, 0); err != nil {
		return err
	}
	h, err := segment.ReadHeader(name, head)
	if is := segmentName(drs.SourceServerID(h.Server), h.ID); err == nil && is != name {
		return &CorruptError{Object: name, Offset: 16, Reason: "swapped: it is " + is}
	}
	return nil
}

// read fills p and counts it, within the rate.
func (f *verifier) read(ctx context.Context, name string, p []byte, off int64) error {
	if err := f.pace.spend(ctx, len(p)); err != nil {
		return err
	}
	n, err := f.store.ReadAt(ctx, name, p, off)
	f.mu.Lock()
	f.report.Bytes += int64(n)
	f.mu.Unlock()
	if n == len(p) {
		return nil
	}
	if errors.Is(err, blob.ErrAbsent) {
		return err
	}
	return readFull(ctx, f.store, name, p, off) // tells what is wrong
}
