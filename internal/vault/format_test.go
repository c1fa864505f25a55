package vault

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

var update = flag.Bool("update", false, "write the hex dumps into docs/formats, and golden files that are not there yet")

// TestHexDumps keeps the worked examples of docs/formats what the code writes.
func TestHexDumps(t *testing.T) {
	sample := sampleSegment()
	manifest := sampleEnvelope(t, envelope.Header{Kind: envelope.Manifest, Number: 2, Branch: "main",
		Attached: uint64(len(sample.Bytes)), Link: [32]byte{0x11, 0x22}}, putEdits(sampleEdits(sample)))
	m := mapper{b: &branch{}, segs: []segmentRef{{seq: 1}, {seq: 2}}}
	body, _ := m.encodeRun(span{1, 0, 2, 0}, volumeMaps{1: {{Block: 0, Count: 16, Seg: 0, Pos: 0}, {Block: 16, Count: 4, Pos: extent.ZeroPos}, {Block: 32, Count: 1, Seg: 1, Pos: 16}}})
	run := sampleEnvelope(t, envelope.Header{Kind: envelope.MapRun, Number: 1, Link: [32]byte{0x33, 0x44}}, body)

	for doc, b := range map[string][]byte{"vault-segment.md": sample.Bytes, "vault-manifest.md": manifest, "vault-maps.md": run} {
		path := filepath.Join("..", "..", "docs", "formats", doc)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		const begin, end = "<!-- hex dump, written by TestHexDumps -->\n```\n", "```\n"
		before, rest, ok := strings.Cut(string(text), begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no place for a hex dump", doc)
		}
		want := before + begin + hex.Dump(b) + end + after
		if want == string(text) {
			continue
		}
		if !*update {
			t.Errorf("%s shows other bytes than the code writes: run go test -run TestHexDumps -update", doc)
			continue
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// sampleSegment holds one frame of two blocks and a run of zeros, not encrypted.
func sampleSegment() segment.Sealed {
	h := segment.Header{Cipher: seal.None, FrameBlocks: FrameBlocks, Sequence: 1, Server: "s-0123456789abcdef0", Branch: "main"}
	for i := range h.ID {
		h.ID[i] = byte(i)
	}
	for i := range h.Salt {
		h.Salt[i] = byte(0xa0 + i)
	}
	b := segment.NewBuilder(h, seal.Key{}, nil)
	raw := make([]byte, 2*BlockSize)
	b.Frame(1, []extent.Record{{Block: 5, Count: 1}, {Block: 7, Count: 1}}, segment.S2, len(raw), s2.Encode(nil, raw), [16]byte(hexBytes("d0d1d2d3d4d5d6d7d8d9dadbdcdddedf")))
	b.Zero(1, 16, 32)
	return b.Finish()
}

func hexBytes(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// sampleEdits are those of an epoch that fits its manifest.
func sampleEdits(s segment.Sealed) []edit {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ref := newSegmentRef(s)
	ref.host = 2
	edits := []edit{
		volumeEdit{Volume{ID: 1, Device: "/dev/sda", Size: 1 << 20}},
		segmentEdit{segmentRef: ref},
		pointEdit{drs.RecoveryPoint{ID: "pit-0123456789abcdef0", Expected: at, Taken: at, Consistency: drs.CrashConsistent, Method: drs.QuietPass, Epoch: 2}, 1},
	}
	ref.offset = envelope.Size(seal.None, len(putEdits(edits)))
	edits[1] = segmentEdit{segmentRef: ref}
	return edits
}

// sampleEnvelope encodes with a salt that does not change.
func sampleEnvelope(t *testing.T, h envelope.Header, body []byte) []byte {
	h.Server = "s-0123456789abcdef0"
	b, _, err := envelope.Encode(h, seal.Key{}, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 32 {
		b[144+i] = byte(0xa0 + i)
	}
	binary.LittleEndian.PutUint32(b[204:], crc32.Checksum(b[:204], crc32.MakeTable(crc32.Castagnoli)))
	if _, err := envelope.Decode("sample", h.Kind, b, seal.Key{}); err != nil {
		t.Fatal(err)
	}
	return b
}
