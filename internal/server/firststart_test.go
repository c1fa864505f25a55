package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A first start that is refused leaves nothing behind, so that the corrected one works.
func TestRefusedFirstStartLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	open := func(data, vault string) (*DataDir, error) {
		t.Helper()
		config := Config{Data: data, Vault: vault}
		first, err := config.first()
		if err != nil {
			t.Fatal(err)
		}
		d, _, err := openDataDir(t.Context(), data, first)
		return d, err
	}
	taken, files, plain := filepath.Join(dir, "taken"), filepath.Join(dir, "files"), filepath.Join(dir, "plain")
	d, err := open(filepath.Join(dir, "other"), "file:"+taken)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(files, "letter"), plain} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "none"))
	data := filepath.Join(dir, "data")
	for vault, says := range map[string]string{
		"file:" + taken: "belongs to another data directory",
		"file:" + files: "holds other files, such as letter",
		"file:" + plain: "name another place",
		"s3://bucket?endpoint=http://127.0.0.1:9&region=us-east-1": "AWS_ACCESS_KEY_ID",
	} {
		if _, err := open(data, vault); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want a refusal that says %q", vault, err, says)
		}
		if _, err := os.Lstat(data); !os.IsNotExist(err) {
			t.Fatalf("%s: the refused start has left a data directory: %v", vault, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "free", ".tmp"), 0o700); err != nil { // cut short
		t.Fatal(err)
	}
	if d, err = open(data, "file:"+filepath.Join(dir, "free")); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	// With another master key, that file is named.
	key := filepath.Join(data, "master.key")
	if err := os.WriteFile(key, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadDataDir(data); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("with another master key: %v", err)
	}
}
