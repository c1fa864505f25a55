package vault

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob/blobtest"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
)

func someEdits() []edit {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return []edit{
		seedEdit(7),
		&base{number: 3, seq: 9, branch: "main", point: "pit-0"},
		segmentEdit{segmentRef{seq: 10, host: 2, offset: 300, length: 1000, index: 500, sum: [32]byte{1}}},
		volumeEdit{Volume{ID: 1, Device: "/dev/sda", Size: 12345}},
		pointEdit{drs.RecoveryPoint{ID: "pit-1", Taken: at, Consistency: drs.CrashConsistent, Method: drs.QuietPass, Epoch: 2}, 10},
		dropPointEdit{"pit-1"},
		droppedEdit{},
	}
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
		st, err := empty.next(1, [32]byte{}, edits)
		if err != nil {
			return
		}
		// A checkpoint of what came out must bring it back.
		edits, err = decodeEdits(putEdits(st.edits()))
		if err != nil {
			t.Fatal(err)
		}
		again, err := empty.next(1, [32]byte{}, edits)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(putEdits(again.edits()), putEdits(st.edits())) || again.seq != st.seq {
			t.Fatal("a checkpoint brings back another state")
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
