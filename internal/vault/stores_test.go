package vault_test

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

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
	"TestStaleLists.*|TestLostAnswers.*|TestSomeEditsFit|Fuzz.*"

// TestSuiteOnS3 runs the tests of this package again in a process of its own, where
// newStore gives buckets.
func TestSuiteOnS3(t *testing.T) {
	if again() {
		t.Skip("this is such a run")
	}
	t.Parallel() // it waits for answers most of the time
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
	t.Parallel()
	runSuite(t, map[string]string{inDirectory: "1"}, os.Getenv("LIFEBOAT_TEST_DIRECTORY_RUN"), besides+"|TestEveryKeptPoint.*")
}

// runSuite runs this package's tests in another process, or only some of them.
func runSuite(t *testing.T, env map[string]string, only, skip string) {
	limit := "8m"
	if os.Getenv(chroniclePoints) != "" {
		limit = "12h"
	}
	cmd := exec.Command(os.Args[0], "-test.skip=^("+skip+")$", "-test.run="+only, "-test.timeout="+limit,
		"-test.v="+strconv.FormatBool(testing.Verbose()), "-rapid.checks=4", "-rapid.nofailfile")
	cmd.Env = os.Environ()
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if testing.Verbose() {
		t.Logf("%s", out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !regexp.MustCompile(`(?m)^PASS$`).Match(out) && err == nil {
		t.Errorf("nothing ran:\n%s", out)
	}
}
