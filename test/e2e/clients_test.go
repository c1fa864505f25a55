package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ready installs a Lifeboat with one protected server, whose disk boots nothing.
func ready(t *testing.T) (*installation, string) {
	t.Helper()
	in := install(t)
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, []byte(strings.Repeat("no boot code here", 1<<16)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, server := in.startAgent(t, image, "--hostname", "clerk")
	return in, server
}

// script runs a client's script to its end and returns what it told.
func (in *installation) script(t *testing.T, extra map[string]string, program string, args ...string) (told struct {
	Server, Template string
	Events           []string
},
) {
	t.Helper()
	env := map[string]string{"AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": in.env["AWS_REGION"]}
	for _, more := range []map[string]string{in.env, extra} {
		for k, v := range more {
			env[k] = v
		}
	}
	stdout, stderr, code := execute(t, exec.CommandContext(t.Context(), program, args...), env)
	if code != 0 {
		t.Fatalf("%s %v: exit %d\n%s\n%s", program, args, code, stdout, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &told); err != nil {
		t.Fatalf("%v printed %q: %v", args, stdout, err)
	}
	return told
}

// The drill of the user guide with Debian's boto3, unchanged but for the endpoint.
func TestDrillWithBoto3(t *testing.T) {
	const python = "/usr/bin/python3" // another one on the PATH does not have Debian's modules
	if out, err := exec.Command(python, "-c", "import boto3").CombinedOutput(); err != nil {
		t.Fatalf("boto3 is missing: %s: make test installs it (apt-get install python3-boto3)", out)
	}
	in, server := ready(t)
	if told := in.script(t, nil, python, "clients/drill.py"); told.Server != server || len(told.Events) < 4 {
		t.Errorf("%+v", told)
	}
}

// The main flows with the AWS SDK for JavaScript.
func TestDrillWithJavaScript(t *testing.T) {
	modules := clientModules(t)
	in, server := ready(t)
	told := in.script(t, map[string]string{"CLIENT_MODULES": modules, "NODE_EXTRA_CA_CERTS": in.env["AWS_CA_BUNDLE"]}, "node", "clients/drill.cjs")
	if told.Server != server || len(told.Events) < 4 {
		t.Errorf("%+v", told)
	}
	if want := in.env["AWS_ENDPOINT_URL"] + "/lifeboat/v1/source-networks/sn-"; !strings.HasPrefix(told.Template, want) {
		t.Errorf("the template is at %s, want %s…", told.Template, want)
	}
}

// clientModules is where scripts/setup.sh keeps the packages of the lock file.
func clientModules(t *testing.T) string {
	t.Helper()
	lock, err := os.ReadFile("clients/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "lifeboat", "tools", "clients-"+hex.EncodeToString(sum[:])[:16])
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(fmt.Errorf("%w: scripts/setup.sh test installs the AWS SDK for JavaScript", err))
	}
	return dir
}
