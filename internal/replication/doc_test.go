package replication

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the example in the format's document")

const document = "../../docs/formats/replication.md"

// The document's example is what the code writes.
func TestDocumentedExample(t *testing.T) {
	taken := time.Unix(1700000000, 0)
	var b strings.Builder
	for _, m := range []struct {
		what string
		Message
	}{
		{"HELLO of an agent that speaks version 1", &Hello{MinVersion: 1, MaxVersion: 1, Instance: [16]byte{0xde, 0xad, 0xbe, 0xef}, Software: "lifeboat-agent 1.0"}},
		{"BEGIN of epoch 1", &Begin{Epoch: 1}},
		{"DATA: block 16 of volume 1, codec 2", &Data{Volume: 1, Codec: CodecS2, RawLen: 4096, Digest: [16]byte{0x5a, 0xa5}, Extents: []Extent{{16, 1}},
			Payload: []byte{0x80, 0x20, 0x04, 0x00, 0x01, 0x11, 0x02, 0x19, 0x00, 0xf2, 0x0e}}},
		{"ZERO: blocks 32 to 47 of volume 1", &Zero{Volume: 1, Block: 32, Count: 16}},
		{"COMMIT as a crash-consistent point by a quiet pass", &Commit{Epoch: 1, Point: true, Consistency: ConsistencyCrash, Method: MethodQuietPass, Expected: taken, Taken: taken}},
		{"ACK: the branch's second commit", &Ack{Epoch: 1, HeadNumber: 2, HeadHash: [32]byte{0xc0, 0xff, 0xee}, Point: "pit-0123456789abcdef0"}},
	} {
		fmt.Fprintf(&b, "%s\n\n", m.what)
		for line := range strings.Lines(hex.Dump(frame(t, m.Message))) {
			b.WriteString("    " + line)
		}
		b.WriteString("\n")
	}
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	const open, end = "<!-- hex dump -->\n", "<!-- end -->"
	before, rest, ok := strings.Cut(string(raw), open)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("the document has no place for the example")
	}
	want := []byte(before + open + b.String() + end + after)
	if *update {
		if err := os.WriteFile(document, want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(raw, want) {
		t.Errorf("the example differs from what is written; run the test with -update and look at the change:\n%s", b.String())
	}
}

// The document's table names every kind.
func TestDocumentedKinds(t *testing.T) {
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range examples() {
		name := strings.ToUpper(strings.TrimPrefix(fmt.Sprintf("%T", m), "*replication."))
		row := fmt.Sprintf("| %d | %s |", m.kind(), name)
		if !strings.Contains(strings.ReplaceAll(string(raw), " REQUEST |", "REQUEST |"), row) {
			t.Errorf("the document has no row %q", row)
		}
	}
}
