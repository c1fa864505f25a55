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
// takes its store from newStore runs twice: in memory, and, started anew by
// TestSuiteOnS3, in a bucket of an S3 server.
type objects interface {
	blob.Store
	Names() []string
	Bytes(name string) []byte
	Replace(name string, b []byte) // nil removes it
}

// s3Endpoint is where the S3 server is when this process runs the suite on it.
const s3Endpoint = "LIFEBOAT_TEST_S3_ENDPOINT"

func onS3() bool { return os.Getenv(s3Endpoint) != "" }

// newStore returns an empty store that lasts as long as the test.
func newStore(t testing.TB) objects {
	t.Helper()
	if onS3() {
		return s3test.NewBucket(t, os.Getenv(s3Endpoint))
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
	}
	t.Fatalf("a %T cannot be cloned", s)
	return nil
}

// some returns all cases in memory and, evenly spread, about n of them on S3, where
// each takes the time of hundreds of requests.
func some[T any](all []T, n int) []T {
	if !onS3() || len(all) <= n {
		return all
	}
	var out []T
	for i := range n {
		out = append(out, all[i*len(all)/n])
	}
	return out
}

// step is how far a loop over many like cases steps on.
func step(inMemory, inBuckets int) int {
	if onS3() {
		return inBuckets
	}
	return inMemory
}

// TestSuiteOnS3 runs the tests of this package again in a process of its own, where
// newStore gives buckets.
func TestSuiteOnS3(t *testing.T) {
	if onS3() {
		t.Skip("this is that run")
	}
	t.Parallel() // it waits for answers most of the time
	server := s3test.StartAside(t)
	// These bring a store of their own, or look at the vault's logic object by object.
	skip := "^(TestSuiteOnS3|TestGolden.*|TestKill.*|TestShared.*|TestHexDumps|TestOpeningReadsFewObjects|TestEveryFlippedBitIsDetected|" +
		"TestVerifyNamesExactlyWhatDamageHurts|TestDaysOfEpochs|TestVerifyFindsNothingWrongInASoundVault|TestChangeOfMasterKey.*|TestStaleLists.*|TestLostAnswers.*|Fuzz.*)$"
	cmd := exec.Command(os.Args[0], "-test.skip="+skip, "-test.run="+only(), "-test.timeout=8m", "-test.v="+strconv.FormatBool(testing.Verbose()), "-rapid.checks=4", "-rapid.nofailfile")
	cmd.Env = append(os.Environ(), s3Endpoint+"="+server.At("x").Endpoint)
	for name, value := range s3test.Env() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if testing.Verbose() {
		t.Logf("%s", out)
	}
	if err != nil {
		t.Errorf("on S3: %v\n%s", err, out)
	}
	if !regexp.MustCompile(`(?m)^PASS$`).Match(out) && err == nil {
		t.Errorf("on S3 nothing ran:\n%s", out)
	}
}

// only is a choice of tests made for the run on S3, by LIFEBOAT_TEST_S3_RUN.
func only() string { return os.Getenv("LIFEBOAT_TEST_S3_RUN") }
