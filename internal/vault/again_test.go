package vault_test

import (
	"bytes"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
	"lifeboat/internal/vault/blob/s3/s3test"
)

// objects is a store whose objects a test can look at and change. Every test that
// takes its store from newStore runs three times: in memory, and, started anew by
// TestSuiteInADirectory and TestSuiteOnS3, in a directory and in a bucket of an S3 server.
type objects interface {
	blob.Store
	Names() []string
	Bytes(name string) []byte
	Replace(name string, b []byte) // nil removes it
}

// s3Endpoint is where the S3 server is when this process runs the suite on it.
const s3Endpoint = "LIFEBOAT_TEST_S3_ENDPOINT"

// inDirectory is set when this process runs the suite in directories.
const inDirectory = "LIFEBOAT_TEST_DIRECTORY"

// long is set when each call to the store is to fail in a rerun, too.
const long = "LIFEBOAT_TEST_LONG"

func onS3() bool { return os.Getenv(s3Endpoint) != "" }

// again tells that this is a run of the suite on a store that takes its time.
func again() bool { return onS3() || os.Getenv(inDirectory) != "" }

// newStore returns an empty store that lasts as long as the test.
func newStore(t testing.TB) objects {
	t.Helper()
	if onS3() {
		return s3test.NewBucket(t, os.Getenv(s3Endpoint))
	}
	if again() {
		return newDirectory(t)
	}
	return blobtest.NewMem()
}

// cloneStore returns a copy that goes its own way.
func cloneStore(t testing.TB, s objects) objects {
	t.Helper()
	switch s := s.(type) {
	case *blobtest.Mem:
		return s.Clone()
	case *s3test.Bucket:
		return s.Clone()
	case *directory:
		return s.Clone()
	}
	t.Fatalf("a %T cannot be cloned", s)
	return nil
}

// copyOf returns a store of the run's kind with the objects of one in memory.
func copyOf(t testing.TB, world *blobtest.Mem) objects {
	t.Helper()
	if !again() {
		return world.Clone()
	}
	store := newStore(t)
	var puts errgroup.Group
	puts.SetLimit(8)
	for _, name := range world.Names() {
		puts.Go(func() error { return store.PutIfAbsent(ctxOf, name, world.Bytes(name)) })
	}
	if err := puts.Wait(); err != nil {
		t.Fatal(err)
	}
	return store
}

// some returns all cases in memory and, evenly spread, about n of them where each takes
// the time of hundreds of requests.
func some[T any](all []T, n int) []T {
	if !again() || len(all) <= n {
		return all
	}
	var out []T
	for i := range n {
		out = append(out, all[i*len(all)/n])
	}
	return out
}

// calls are the calls to the store that fail, one in each run, until the test has seen a run
// without a fault: from one call every so many. In a rerun it is a single one up to most, any.
func calls(from, every, most int) iter.Seq[int] {
	return func(yield func(int) bool) {
		if again() && os.Getenv(long) == "" {
			yield(1 + rand.IntN(most))
			return
		}
		for n := from; yield(n); n += every {
		}
	}
}

// step is how far a loop over many like cases steps on.
func step(inMemory, elsewhere int) int {
	if again() {
		return elsewhere
	}
	return inMemory
}

// besides are tests that bring a store of their own, look at the vault's logic object by
// object, or need no store.
const besides = "TestSuite.*|TestGolden.*|TestKill.*|TestShared.*|TestHexDumps|TestOpeningReadsFewObjects|" +
	"TestStaleLists.*|TestLostAnswers.*|TestSomeEditsFit|TestIdleBranches.*|Fuzz.*"

// TestSuiteOnS3 runs the tests of this package again in a process of its own, where
// newStore gives buckets.
func TestSuiteOnS3(t *testing.T) {
	if again() {
		t.Skip("this is such a run")
	}
	env := s3test.Env()
	env[s3Endpoint] = s3test.StartAside(t).At("x").Endpoint
	// Hundreds of copies of a vault say no more about the store than a few.
	runSuite(t, env, os.Getenv("LIFEBOAT_TEST_S3_RUN"), besides+"|TestEveryFlippedBitIsDetected|TestVerifyNamesExactlyWhatDamageHurts")
}

// TestSuiteInADirectory does so where newStore gives directories.
func TestSuiteInADirectory(t *testing.T) {
	if again() {
		t.Skip("this is such a run")
	}
	runSuite(t, map[string]string{inDirectory: "1"}, os.Getenv("LIFEBOAT_TEST_DIRECTORY_RUN"), besides+"|TestEveryKeptPoint.*")
}

// runSuite runs this package's tests in another process, or only some of them. The process
// runs beside all tests of this one: it waits for answers much of the time.
func runSuite(t *testing.T, env map[string]string, only, skip string) {
	limit := "8m"
	if os.Getenv(chroniclePoints) != "" || os.Getenv(long) != "" {
		limit = "12h"
	}
	cmd := exec.Command(os.Args[0], "-test.skip=^("+skip+")$", "-test.run="+only, "-test.timeout="+limit,
		"-test.v="+strconv.FormatBool(testing.Verbose()), "-rapid.checks=4", "-rapid.nofailfile")
	cmd.Env = os.Environ()
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	err := cmd.Wait()
	if testing.Verbose() {
		t.Logf("%s", &out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	if !regexp.MustCompile(`(?m)^PASS$`).Match(out.Bytes()) && err == nil {
		t.Errorf("nothing ran:\n%s", &out)
	}
}
