package branchlog_test

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lifeboat/internal/durable"
	"lifeboat/internal/vault/branchlog"
)

const killBlocks = 200

// TestMain turns the test binary into a writer when asked, so that a test can
// kill it.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BRANCHLOG_TEST_DIR"); dir != "" {
		err := stamp(dir, os.Getenv("BRANCHLOG_TEST_FROM"))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	if !given("rapid.checks") {
		flag.Set("rapid.checks", "30")
	}
	os.Exit(m.Run())
}

func given(name string) (yes bool) {
	flag.Visit(func(f *flag.Flag) { yes = yes || f.Name == name })
	return yes
}

func killBase() testBase { return make(testBase, killBlocks*branchlog.BlockSize) }

// stamp writes numbered blocks for ever, a few in a row, and says so after each.
func stamp(dir, from string) error {
	n, err := strconv.ParseUint(from, 10, 64)
	if err != nil {
		return err
	}
	l, err := branchlog.OpenWith(dir, testKey, killBase(), durable.Files{}, 300)
	if err != nil {
		return err
	}
	for ; ; n++ {
		if _, err := l.WriteAt(stamped(n), int64(n%(killBlocks-3))*branchlog.BlockSize); err != nil {
			return err
		}
		if n%7 == 0 {
			if err := l.Flush(ctx); err != nil {
				return err
			}
		}
		fmt.Println(n)
	}
}

// stamped is 1 to 3 blocks that carry the number n.
func stamped(n uint64) []byte {
	p := make([]byte, (1+n%3)*branchlog.BlockSize)
	for off := 0; off < len(p); off += 8 {
		binary.LittleEndian.PutUint64(p[off:], n)
	}
	return p
}

// TestKill kills a writer again and again, wherever it is. Every write that it
// said was done is there, whole, or a later one over it.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk-0")
	if err := branchlog.Create(dir, killBase().Size(), testKey); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	want := make([]uint64, killBlocks) // number of each block that was told done
	next := uint64(1)
	for range 12 {
		last := stampAndKill(t, dir, next, 1+rnd.IntN(400))
		for ; next <= last; next++ {
			for i := range 1 + next%3 {
				want[next%(killBlocks-3)+i] = next
			}
		}
		l := openSmall(t, dir, testKey, killBase(), 300)
		b := make([]byte, branchlog.BlockSize)
		for i, w := range want {
			if _, err := l.ReadAt(b, int64(i)*branchlog.BlockSize); err != nil {
				t.Fatal(err)
			}
			// One write more may have been done than was told.
			got := binary.LittleEndian.Uint64(b)
			if got != w && got != last+1 {
				t.Fatalf("block %d holds %d, want %d (last told: %d)", i, got, w, last)
			}
			want[i] = got
			for off := 0; off < len(b); off += 8 {
				if binary.LittleEndian.Uint64(b[off:]) != got {
					t.Fatalf("block %d is torn", i)
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		next = last + 2
	}
}

// stampAndKill runs a writer from number n on, kills it after so many writes and
// returns the last one that it told.
func stampAndKill(t *testing.T, dir string, n uint64, writes int) (last uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BRANCHLOG_TEST_DIR="+dir, fmt.Sprint("BRANCHLOG_TEST_FROM=", n))
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		if i == writes {
			cmd.Process.Kill()
		}
		if last, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Wait()
	if complaint.Len() > 0 || last == 0 {
		t.Fatalf("the writer ended by itself: %s", complaint.String())
	}
	return last
}
