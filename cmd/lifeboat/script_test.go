package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"lifeboat/internal/vault/blob/s3/s3test"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lifeboat": main})
}

// TestRefusals runs the scripts that need no server: what is refused, and how.
func TestRefusals(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/refusals",
		Setup: func(e *testscript.Env) error { clear(e); return nil },
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"fails": fails},
	})
}

// TestVerbs runs the scripts against a real server with real agents: db1 and web
// have a disk image each, and two servers are called twin. Machines that a
// script launches are real ones, too.
func TestVerbs(t *testing.T) { runScripts(t, newWorld(t, nil), "testdata/verbs") }

// TestVaultVerbs has a server of its own, which its script stops, and damages its vault.
func TestVaultVerbs(t *testing.T) { runScripts(t, newWorld(t, nil), "testdata/vault") }

// TestVaultVerbsOnS3 does the same to a vault in a bucket.
func TestVaultVerbsOnS3(t *testing.T) {
	runScripts(t, newWorld(t, s3test.Start(t).Bucket()), "testdata/vault")
}

func runScripts(t *testing.T, w *world, dir string) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			clear(e)
			for _, line := range strings.Split(w.env, "\n") {
				if name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "="); ok {
					e.Setenv(name, strings.Trim(value, "'"))
				}
			}
			e.Setenv("DATA", w.data)
			e.Setenv("VAULT", w.vault())
			if w.bucket != nil {
				for name, value := range s3test.Env() {
					e.Setenv(name, value)
				}
			}
			e.Setenv("DB1_IMAGE", w.image("db1"))
			e.Setenv("DB1", w.id("db1"))
			one, two, _ := strings.Cut(w.id("twin"), " ")
			e.Setenv("TWIN1", one)
			e.Setenv("TWIN2", two)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails": fails, "json": isJSON, "server": w.control, "damage": w.damage,
		},
	})
}

// clear makes a script's environment independent of who runs it.
func clear(e *testscript.Env) {
	e.Setenv("TZ", "UTC")
	e.Setenv("AWS_CONFIG_FILE", filepath.Join(e.WorkDir, "none"))
	e.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(e.WorkDir, "none"))
}

// fails CODE COMMAND… runs a command that must exit with CODE, its stdout empty.
func fails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails CODE COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("%v, want exit code %s", err, args[0])
	}
	if got := fmt.Sprint(exit.ExitCode()); got != args[0] {
		ts.Fatalf("exit code %s, want %s\n%s", got, args[0], ts.ReadFile("stderr"))
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("stdout of a refusal is not empty: %s", out)
	}
}

// isJSON checks that stdout is one JSON document with the given members at its top.
func isJSON(ts *testscript.TestScript, neg bool, members []string) {
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	var document map[string]json.RawMessage
	if err := decoder.Decode(&document); err != nil {
		ts.Fatalf("stdout is no JSON document: %v", err)
	}
	if decoder.More() {
		ts.Fatalf("stdout holds more than one document")
	}
	for _, member := range members {
		if _, ok := document[member]; ok == neg {
			ts.Fatalf("member %q there: %v", member, ok)
		}
	}
}

// world is a running server and the agents that replicate to it.
type world struct {
	t    *testing.T
	dir  string
	data string
	env  string // as lifeboat env prints it

	bucket     *s3test.Bucket // holds the vault; nil: a directory does
	stopServer func()
}

func newWorld(t *testing.T, bucket *s3test.Bucket) *world {
	t.Helper()
	// Sockets below it have long names; t.TempDir may be too long for them.
	dir, err := os.MkdirTemp("", "lb")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, data: filepath.Join(dir, "data"), bucket: bucket}
	t.Cleanup(func() { w.stopServer() }) // the one that runs then
	w.startServer()
	w.eventually(func() error { _, err := w.run("init", "--data", w.data); return err })
	t.Cleanup(w.terminateAll) // before the server is stopped
	w.env, err = w.run("env", "--data", w.data)
	must(t, err)
	url := regexp.MustCompile(`AWS_ENDPOINT_URL='(.*)'`).FindStringSubmatch(w.env)
	token := regexp.MustCompile(`LIFEBOAT_TOKEN='(.*)'`).FindStringSubmatch(w.env)

	rnd := rand.New(rand.NewPCG(7, 7))
	for _, name := range []string{"db1", "web", "twin", "twin.2"} {
		image := make([]byte, 9<<20)
		for n := 1 << 20; n < 4<<20; n++ {
			image[n] = byte(rnd.Uint32())
		}
		must(t, os.WriteFile(w.image(name), image, 0o600))
		hostname, _, _ := strings.Cut(name, ".")
		w.start("agent", "--server", url[1], "--ca-cert", filepath.Join(w.data, "ca.pem"), "--token", token[1],
			"--state", filepath.Join(dir, name+".state"), "--disk", w.image(name), "--hostname", hostname, "--memory", "64MiB")
	}
	w.eventually(func() error {
		out, err := w.run("servers", "--data", w.data)
		if ready := strings.Count(out, " Ready "); err == nil && ready != 4 {
			err = fmt.Errorf("%d servers are ready, want 4:\n%s", ready, out)
		}
		return err
	})
	return w
}

func (w *world) image(name string) string { return filepath.Join(w.dir, name+".img") }

// id returns the IDs of the servers of a name, separated by spaces.
func (w *world) id(hostname string) string {
	w.t.Helper()
	out, err := w.run("servers", "--json", "--data", w.data)
	must(w.t, err)
	var list struct {
		Servers []struct{ ID, Hostname string }
	}
	must(w.t, json.Unmarshal([]byte(out), &list))
	var ids []string
	for _, s := range list.Servers {
		if s.Hostname == hostname {
			ids = append(ids, s.ID)
		}
	}
	return strings.Join(ids, " ")
}

// start runs a verb until the test ends.
func (w *world) start(args ...string) {
	w.t.Helper()
	w.t.Cleanup(w.launch(args...))
}

// launch runs a verb until stop. Its messages are shown if the test fails.
func (w *world) launch(args ...string) (stop func()) {
	w.t.Helper()
	var messages bytes.Buffer
	c := exec.Command("lifeboat", args...)
	c.Stdout, c.Stderr = &messages, &messages
	must(w.t, c.Start())
	return sync.OnceFunc(func() {
		c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil || w.t.Failed() {
			w.t.Logf("lifeboat %s: %v\n%s", args[0], err, &messages)
		}
	})
}

func (w *world) run(args ...string) (string, error) {
	var out, messages bytes.Buffer
	c := exec.Command("lifeboat", args...)
	c.Stdout, c.Stderr = &out, &messages
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("lifeboat %s: %w: %s", strings.Join(args, " "), err, &messages)
	}
	return out.String(), nil
}

// terminateAll leaves no machine behind when a script failed half-way.
func (w *world) terminateAll() {
	out, err := w.run("instances", "--json", "--data", w.data)
	if err != nil {
		w.t.Error(err)
		return
	}
	var list struct{ Instances []struct{ ID string } }
	must(w.t, json.Unmarshal([]byte(out), &list))
	for _, i := range list.Instances {
		if _, err := w.run("terminate", i.ID, "--data", w.data); err != nil {
			w.t.Error(err)
		}
	}
}

// eventually tries until it works: other processes give no signal to wait for.
func (w *world) eventually(try func() error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("after a minute still: %v", err)
		case <-tick.C:
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
