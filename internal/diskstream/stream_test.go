package diskstream

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// example is the stream that docs/formats/export-stream.md dumps.
func example(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, 1<<20)
	must(t, err)
	must(t, w.Data(0, []byte("boot")))
	must(t, w.Data(4096, []byte("root")))
	must(t, w.End())
	return b.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// decode reads a whole stream into the bytes of its disk.
func decode(stream io.Reader) ([]byte, error) {
	r, err := NewReader(stream)
	if err != nil {
		return nil, err
	}
	disk := map[int64][]byte{}
	for {
		off, data, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		disk[off] = bytes.Clone(data)
	}
	whole := make([]byte, r.Size())
	for off, data := range disk {
		copy(whole[off:], data)
	}
	return whole, nil
}

func TestRoundTrip(t *testing.T) {
	got, err := decode(bytes.NewReader(example(t)))
	must(t, err)
	want := make([]byte, 1<<20)
	copy(want, "boot")
	copy(want[4096:], "root")
	if !bytes.Equal(got, want) {
		t.Error("the decoded disk differs from the one that was sent")
	}
}

func TestEmptyDisk(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b, 0)
	must(t, err)
	must(t, w.End())
	if got, err := decode(&b); err != nil || len(got) != 0 {
		t.Errorf("decode = %d bytes, %v; want an empty disk", len(got), err)
	}
}

// TestFormatIsPinned keeps the bytes, and the document that shows them, as they are.
func TestFormatIsPinned(t *testing.T) {
	dump := hex.Dump(example(t))
	doc, err := os.ReadFile("../../docs/formats/export-stream.md")
	must(t, err)
	if !strings.Contains(string(doc), dump) {
		t.Errorf("docs/formats/export-stream.md lacks the dump of the example:\n%s", dump)
	}
}

func TestCutAnywhereIsTruncated(t *testing.T) {
	whole := example(t)
	for n := range whole {
		if _, err := decode(bytes.NewReader(whole[:n])); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut after %d of %d bytes: %v, want ErrTruncated", n, len(whole), err)
		}
	}
}

func TestAnyFlippedBitIsNoticed(t *testing.T) {
	whole := example(t)
	for n := range len(whole) * 8 {
		changed := bytes.Clone(whole)
		changed[n/8] ^= 1 << (n % 8)
		if _, err := decode(bytes.NewReader(changed)); err == nil {
			t.Fatalf("flipping bit %d of byte %d goes unnoticed", n%8, n/8)
		}
	}
}

func TestLostRecordIsNoticed(t *testing.T) {
	whole := example(t)
	const record = recordHead + 4 + recordTail
	lost := append(bytes.Clone(whole[:headerSize]), whole[headerSize+record:]...)
	var corrupt *CorruptError
	if _, err := decode(bytes.NewReader(lost)); !errors.As(err, &corrupt) {
		t.Errorf("a lost record: %v, want *CorruptError", err)
	}
	swapped := bytes.Clone(whole)
	copy(swapped[headerSize:], whole[headerSize+record:headerSize+2*record])
	copy(swapped[headerSize+record:], whole[headerSize:headerSize+record])
	if _, err := decode(bytes.NewReader(swapped)); !errors.As(err, &corrupt) {
		t.Errorf("two swapped records: %v, want *CorruptError", err)
	}
	if _, err := decode(bytes.NewReader(append(whole, 0))); !errors.As(err, &corrupt) {
		t.Errorf("a byte too many: %v, want *CorruptError", err)
	}
}

func TestSenderTellsWhy(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b, 4096)
	must(t, err)
	must(t, w.Data(0, []byte("x")))
	must(t, w.Fail("segment 7 is damaged"))
	var sender *SenderError
	if _, err := decode(&b); !errors.As(err, &sender) || sender.Message != "segment 7 is damaged" {
		t.Errorf("got %v, want the sender's reason", err)
	}
}

func TestWriterRefuses(t *testing.T) {
	for name, write := range map[string]func(*Writer) error{
		"nothing":        func(w *Writer) error { return w.Data(0, nil) },
		"beyond the end": func(w *Writer) error { return w.Data(8190, []byte("abc")) },
		"too much":       func(w *Writer) error { return w.Data(0, make([]byte, MaxData+1)) },
		"backwards": func(w *Writer) error {
			return errors.Join(w.Data(4096, []byte("a")), w.Data(0, []byte("b")))
		},
		"after the end": func(w *Writer) error { return errors.Join(w.End(), w.Data(0, []byte("b"))) },
	} {
		w, err := NewWriter(io.Discard, 8192)
		must(t, err)
		if err := write(w); err == nil {
			t.Errorf("%s: no error", name)
		}
		if err := w.End(); err == nil {
			t.Errorf("%s: the writer goes on after an error", name)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(example(f))
	f.Add(example(f)[:60])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r, err := NewReader(bytes.NewReader(stream))
		if err != nil {
			return
		}
		var end int64
		for {
			off, data, err := r.Next()
			if err != nil {
				return
			}
			if off < end || len(data) == 0 || off+int64(len(data)) > r.Size() {
				t.Fatalf("record of %d bytes at %d after %d, disk of %d", len(data), off, end, r.Size())
			}
			end = off + int64(len(data))
		}
	})
}
