package vault

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob/blobtest"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

func someEdits() []edit {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return []edit{
		seedEdit(7),
		&base{number: 3, seq: 9, branch: "main", point: "pit-0"},
		segmentEdit{segmentRef{seq: 10, host: 2, offset: 300, length: 1000, index: 500, sum: [32]byte{1}, from: 10, to: 10}, true},
		segmentEdit{segmentRef: someSegment(11)},
		segmentEdit{segmentRef: someSegment(12)},
		segmentEdit{segmentRef: someSegment(13)},
		volumeEdit{Volume{ID: 1, Device: "/dev/sda", Size: 12345}},
		volumeEdit{Volume{ID: 1, Device: "/dev/sdb", Size: 12345, Identity: "serial:S3Z1"}},
		pointEdit{drs.RecoveryPoint{ID: "pit-1", Taken: at, Consistency: drs.CrashConsistent, Method: drs.QuietPass, Epoch: 2}, 10},
		dropPointEdit{"pit-1"},
		clockEdit{at},
		pointEdit{drs.RecoveryPoint{ID: "pit-2", Taken: at, Consistency: drs.CrashConsistent, Method: drs.QuietPass, Epoch: 3}, 11},
		pointEdit{drs.RecoveryPoint{ID: "pit-3", Taken: at, Consistency: drs.CrashConsistent, Method: drs.QuietPass, Epoch: 4}, 13},
		pointEdit{drs.RecoveryPoint{ID: "pit-4", Taken: at, Consistency: drs.FilesystemConsistent, Method: drs.Frozen, Epoch: 5, Freeze: 83 * time.Millisecond}, 13},
		dropManyEdit{"pit-2"},
		holdEdit{hold{"i-2", 13, "pit-3"}},
		holdEdit{hold{"i-3", 13, "pit-3"}},
		releaseEdit("i-2"),
		lockEdit{"pit-3", at},
		promiseEdit{promise{[16]byte{1}, []segment.ID{{2}, {3}}}},
		promiseEdit{promise{[16]byte{4}, nil}},
		&foldEdit{after: 9, upTo: 13, done: true, removed: []removal{{10, segment.ID{}}, {12, segment.ID{12}}}, added: []segmentRef{someSegment(12)}},
		fulfilEdit{1},
		restatedEdit{restated{1, 1}},
		tipEdit{20, written{1, [32]byte{5}}},
		looseEdit{3, 5},
	}
}

func someSegment(seq uint64) segmentRef {
	return segmentRef{seq: seq, id: segment.ID{byte(seq)}, length: 1000, index: 500, sum: [32]byte{2}, from: seq, to: seq, blocks: 7, zeros: 1}
}

func FuzzEdits(f *testing.F) {
	f.Add(putEdits(someEdits()))
	for _, e := range someEdits() {
		f.Add(putEdits([]edit{e}))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		edits, err := decodeEdits(body)
		if err != nil {
			return
		}
		if !bytes.Equal(putEdits(edits), body) {
			t.Fatal("decoded edits encode to other bytes")
		}
		empty := &state{server: "s-0", branch: "i-1"}
		st, err := empty.next(1, [32]byte{}, seal.Salt{}, edits)
		if err != nil {
			return
		}
		// A checkpoint of what came out must bring it back.
		edits, err = decodeEdits(putEdits(st.edits()))
		if err != nil {
			t.Fatal(err)
		}
		again, err := empty.next(1, [32]byte{}, seal.Salt{}, edits)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(putEdits(again.edits()), putEdits(st.edits())) || again.seq != st.seq {
			t.Fatal("a checkpoint brings back another state")
		}
	})
}

// TestSomeEditsFit: what the fuzzing starts from means something.
func TestSomeEditsFit(t *testing.T) {
	empty := &state{server: "s-0", branch: "i-1"}
	st, err := empty.next(1, [32]byte{}, seal.Salt{}, someEdits())
	if err != nil {
		t.Fatal(err)
	}
	if got := len(st.segments.items); got != 3 {
		t.Errorf("%d segments, want 3", got)
	}
	if !slices.Equal(st.loose, []uint64{3, 5, 13}) || len(st.promises) != 1 || len(st.holds) != 1 {
		t.Errorf("loose %v, promises %v, holds %v", st.loose, st.promises, st.holds)
	}
	if _, err := st.next(2, [32]byte{}, seal.Salt{}, []edit{droppedEdit{}}); err == nil {
		t.Error("a branch with a hold was dropped")
	}
	if _, err := st.next(2, [32]byte{}, seal.Salt{}, []edit{&foldEdit{after: 12, upTo: 20}}); err == nil {
		t.Error("a fold went over a point")
	}
}

func FuzzPack(f *testing.F) {
	f.Add((&pack{first: 3, before: [32]byte{1}, entries: []packEntry{{[32]byte{2}, putEdits(someEdits())}, {[32]byte{3}, nil}}}).put())
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := decodePack(body)
		if err == nil && !bytes.Equal(p.put(), body) {
			t.Fatal("a decoded pack encodes to other bytes")
		}
	})
}

func FuzzRun(f *testing.F) {
	f.Add([]byte{})
	m := mapper{b: &branch{}, segs: []segmentRef{{seq: 1}, {seq: 2}}}
	body, _ := m.encodeRun(span{1, 0, 2, 0}, volumeMaps{
		1: {{Block: 1, Count: 2, Seg: 1, Pos: 5}, {Block: 9, Count: 2, Pos: extent.ZeroPos}},
		2: {{Block: 0, Count: 1}},
	})
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		maps, err := decodeRun(body)
		if err != nil {
			return
		}
		for id, records := range maps {
			if !extent.Sorted(records) {
				t.Fatalf("volume %d: %v", id, records)
			}
		}
	})
}

// FuzzRoot reads arbitrary bodies of the two objects that are not sealed.
func FuzzRoot(f *testing.F) {
	r := root{cipher: seal.AESGCM, own: wrappedKey{"key-id", []byte("sealed")}}
	f.Add(r.body())
	f.Fuzz(func(t *testing.T, body []byte) {
		store := blobtest.NewMem()
		stored, _, err := envelope.Encode(envelope.Header{Kind: envelope.Root, Number: 1}, seal.Key{}, body)
		if err != nil {
			t.Fatal(err)
		}
		store.Replace(rootName(1), stored)
		got, err := readRoot(context.Background(), store, nil)
		var corrupt *CorruptError
		if err != nil && !errors.As(err, &corrupt) {
			t.Fatalf("%v: want a CorruptError", err)
		}
		if err == nil && !bytes.Equal(got.body(), body) {
			t.Fatal("decoded root encodes to other bytes")
		}
	})
}
