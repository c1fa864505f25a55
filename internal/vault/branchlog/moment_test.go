package branchlog_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"lifeboat/internal/durable"
	"lifeboat/internal/vault/branchlog"
)

// One writer writes every number to both of two disks, the second only after the
// first has answered. While it writes and the collectors work, moments are taken
// and what changed since the one before is applied to copies: each moment must be
// what a power cut could have left, and the last one must be the disks.
func TestMomentsArePrefixes(t *testing.T) {
	const blocks, moments = 64, 60
	var logs []*branchlog.Log
	var copies [][]byte
	for _, name := range []string{"disk-0", "disk-1"} {
		dir := filepath.Join(fastDir(t), name)
		base := make(testBase, blocks*branchlog.BlockSize)
		if err := branchlog.Create(dir, base.Size(), testKey); err != nil {
			t.Fatal(err)
		}
		l, err := branchlog.OpenWith(dir, testKey, base, durable.Files{}, 260) // many small files
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		logs, copies = append(logs, l), append(copies, make([]byte, base.Size()))
	}

	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		rnd := rand.New(rand.NewPCG(3, 4))
		block := make([]byte, branchlog.BlockSize)
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			at := int64(1+rnd.IntN(blocks-1)) * branchlog.BlockSize
			for _, l := range logs {
				binary.LittleEndian.PutUint64(block, n)
				for _, off := range []int64{at, 0} { // block 0 holds the last number
					if _, err := l.WriteAt(block, off); err != nil {
						stopped <- err
						return
					}
				}
				if n%5 == 0 {
					if err := l.Trim(ctx, at, branchlog.BlockSize); err != nil {
						stopped <- err
						return
					}
				}
			}
		}
	}()

	since := make([]uint64, len(logs))
	for k := range moments {
		if k == moments-1 {
			close(stop)
			if err := <-stopped; err != nil {
				t.Fatal(err)
			}
		}
		m, err := branchlog.Cut(logs...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range logs {
			from := since[i]
			if k%7 == 3 { // the note of what was applied is lost: all of it again
				from = 0
			}
			for r, err := range m.Records(ctx, i, from) {
				if err != nil {
					t.Fatal(err)
				}
				if r.Sequence > m.Sequence(i) {
					t.Fatalf("record %d is after the moment %d", r.Sequence, m.Sequence(i))
				}
				dst := copies[i][r.Block*branchlog.BlockSize:][:int(r.Count)*branchlog.BlockSize]
				if r.Kind == branchlog.Data {
					copy(dst, r.Data)
				} else {
					clear(dst)
				}
			}
			since[i] = m.Sequence(i)
		}
		m.Close()
		var last [2]uint64
		for i, c := range copies {
			last[i] = binary.LittleEndian.Uint64(c)
			for b := 1; b < blocks; b++ {
				// The number's own write comes before the one to block 0.
				if n := binary.LittleEndian.Uint64(c[b*branchlog.BlockSize:]); n > last[i]+1 {
					t.Fatalf("moment %d: disk %d has %d at block %d, and its last number is %d", k, i, n, b, last[i])
				}
			}
		}
		if last[1] > last[0] || last[0] > last[1]+1 {
			t.Fatalf("moment %d: the first disk is at %d, the second at %d", k, last[0], last[1])
		}
	}
	for i, l := range logs {
		now := make([]byte, l.Size())
		if _, err := l.ReadAt(now, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(now, copies[i]) {
			t.Errorf("disk %d is not what its records give", i)
		}
		if s := l.Stats(); s.Files > 200 {
			t.Errorf("the collector did not work: %d files", s.Files)
		}
	}
}
