package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// vault says where the world's vault is, as --vault takes it.
func (w *world) vault() string {
	if w.bucket != nil {
		return w.bucket.Where.String()
	}
	return "file:" + filepath.Join(w.data, "vault")
}

func (w *world) startServer() {
	args := []string{"server", "--data", w.data, "--listen", "127.0.0.1:0", "--replication-listen", "127.0.0.1:0", "--nbd-listen", "127.0.0.1:0"}
	if w.bucket != nil {
		args = append(args, "--vault", w.vault())
	}
	w.stopServer = w.launch(args...)
}

// control is the script's command server start|stop. A started server answers.
func (w *world) control(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case !neg && len(args) == 1 && args[0] == "stop":
		w.stopServer()
	case !neg && len(args) == 1 && args[0] == "start":
		w.startServer()
		w.eventually(func() error { _, err := w.run("servers", "--data", w.data); return err })
	default:
		ts.Fatalf("usage: server start|stop")
	}
}

// damage DIR SUFFIX flips a bit in the middle of the first object of those, and the second
// time back. It leaves the object's name in $OBJECT.
func (w *world) damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage DIR SUFFIX")
	}
	for _, name := range w.objects(ts) {
		if strings.HasPrefix(name, args[0]) && strings.HasSuffix(name, args[1]) {
			ts.Setenv("OBJECT", name)
			w.flip(ts, name)
			return
		}
	}
	ts.Fatalf("no object %s…%s in the vault", args[0], args[1])
}

func (w *world) objects(ts *testscript.TestScript) (names []string) {
	if w.bucket != nil {
		return w.bucket.Names()
	}
	root := filepath.Join(w.data, "vault")
	ts.Check(filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, strings.TrimPrefix(path, root+"/"))
		}
		return err
	}))
	return names
}

func (w *world) flip(ts *testscript.TestScript, name string) {
	if w.bucket != nil {
		content := w.bucket.Bytes(name)
		content[len(content)/2] ^= 8
		w.bucket.Replace(name, content)
		return
	}
	path := filepath.Join(w.data, "vault", name)
	content, err := os.ReadFile(path)
	ts.Check(err)
	content[len(content)/2] ^= 8
	ts.Check(os.Remove(path)) // its file is read-only
	ts.Check(os.WriteFile(path, content, 0o400))
}
