package vault_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"lifeboat/internal/vault"
)

// An epoch that was given up leaves no segments behind: what did not fit must not
// fill the store for good.
func TestAbandonedEpochFreesItsSegments(t *testing.T) {
	if onS3() {
		t.Skip("a request given up may still be done after the delete: that object is the collector's")
	}
	store, keys := newStore(t), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	before := store.Names()
	w := must(v.Writer(t.Context(), server, vault.MainBranch))(t)
	e := must(w.Begin(t.Context(), []vault.Volume{{ID: 1, Device: "/dev/sda", Size: 64 << 20}}))(t)
	random := rand.NewChaCha8([32]byte{1})
	chunk := make([]byte, vault.ChunkSize)
	for n := range uint64(300) { // two segments and a half
		random.Read(chunk)
		err := e.Append(vault.Frame{
			Volume: 1, Extents: []vault.Extent{{Block: n * vault.FrameBlocks, Count: vault.FrameBlocks}}, RawLen: len(chunk), Payload: chunk,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	e.Abort()
	v.WaitTasks()
	if after := store.Names(); !slices.Equal(before, after) {
		t.Errorf("left behind: %v", after)
	}
}
