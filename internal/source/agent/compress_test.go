package agent

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
)

func TestPackComesBack(t *testing.T) {
	c, err := newCompressor(1)
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	random := make([]byte, blocktrack.ChunkSize)
	rand.NewChaCha8([32]byte{1}).Read(random)
	text := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog, "), 2000)[:blocktrack.ChunkSize]
	half := append(bytes.Clone(random[:32<<10]), text[:32<<10]...)
	sparse := make([]byte, blocktrack.ChunkSize)
	sparse[40000] = 1
	for name, test := range map[string]struct {
		raw  []byte
		fast bool
		want uint8
	}{
		"random":      {random, false, replication.CodecRaw},
		"random fast": {random, true, replication.CodecRaw},
		"text":        {text, false, replication.CodecZstd},
		"text fast":   {text, true, replication.CodecS2},
		"half":        {half, false, replication.CodecZstd},
		"sparse fast": {sparse, true, replication.CodecS2},
		"block":       {text[:4096], false, replication.CodecZstd},
		"random tail": {random[:4096], true, replication.CodecRaw},
	} {
		t.Run(name, func(t *testing.T) {
			codec, packed, buf := c.pack(test.raw, test.fast)
			if codec != test.want {
				t.Errorf("codec %d, want %d", codec, test.want)
			}
			if len(packed) > len(test.raw) || len(packed) > replication.MaxData {
				t.Errorf("%d bytes became %d", len(test.raw), len(packed))
			}
			back, err := packed, error(nil)
			switch codec {
			case replication.CodecZstd:
				back, err = decoder.DecodeAll(packed, nil)
			case replication.CodecS2:
				back, err = s2.Decode(nil, packed)
			}
			if err != nil || !bytes.Equal(back, test.raw) {
				t.Errorf("does not come back: %v", err)
			}
			c.buffers.Put(buf)
		})
	}
}

func BenchmarkPack(b *testing.B) {
	c, err := newCompressor(1)
	if err != nil {
		b.Fatal(err)
	}
	text := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog, "), 2000)[:blocktrack.ChunkSize]
	for name, fast := range map[string]bool{"zstd": false, "s2": true} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				_, _, buf := c.pack(text, fast)
				c.buffers.Put(buf)
			}
		})
	}
}

// Whether the line or packing is what limits decides between size and speed.
func TestSlowLineIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l line
		for _, test := range []struct {
			name       string
			wait, send time.Duration
			want       bool
		}{
			{"packing limits", 3 * time.Millisecond, time.Millisecond, false},
			{"a line of 3 MB/s", 50 * time.Microsecond, 20 * time.Millisecond, true},
			{"fast again", 3 * time.Millisecond, time.Millisecond, false},
			{"a line of 600 MB/s", 10 * time.Microsecond, 90 * time.Microsecond, false},
		} {
			for range 300 {
				time.Sleep(test.wait)
				start := time.Now()
				time.Sleep(test.send)
				l.measure(start, 60<<10)
			}
			if l.slow.Load() != test.want {
				t.Errorf("%s: slow %v", test.name, l.slow.Load())
			}
		}
	})
}
