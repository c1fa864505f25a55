package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var master = bytes.Repeat([]byte("m"), 32)

func TestAdminKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin-key.json")
	if _, err := LoadAdminKey(path, master); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("load before create: %v", err)
	}
	made, err := CreateAdminKey(path, master, account)
	if err != nil {
		t.Fatal(err)
	}
	if !accessKeyID.MatchString(made.ID) || len(made.Secret) != 40 || made.Account != account {
		t.Errorf("made %q with a secret of %d characters for %v", made.ID, len(made.Secret), made.Account)
	}
	kept, err := LoadAdminKey(path, master)
	if err != nil || kept != made {
		t.Errorf("kept another key: %v", err)
	}
	if _, err := CreateAdminKey(path, master, account); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create again: %v", err)
	}
	if kept, err := LoadAdminKey(path, master); err != nil || kept != made {
		t.Errorf("creating again changed the key: %v", err)
	}

	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil || bytes.Contains(text, []byte(made.Secret.Reveal())) {
		t.Errorf("the file shows the secret, or: %v", err)
	}
	if names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

// Whatever happens to the file, loading tells damage and changes nothing.
func TestAdminKeyDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin-key.json")
	if _, err := CreateAdminKey(path, master, account); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := NewAccessKey(account).ID
	var file adminKeyFile
	if err := json.Unmarshal(good, &file); err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{
		"empty":        {},
		"cut":          good[:len(good)/2],
		"no secret":    []byte(`{"version":1}`),
		"newer":        bytes.Replace(good, []byte(`"version": 1`), []byte(`"version": 2`), 1),
		"other ID":     bytes.Replace(good, []byte(file.ID), []byte(other), 1),
		"other region": bytes.Replace(good, []byte("eu-west-1"), []byte("eu-west-2"), 1),
		"long":         bytes.Repeat([]byte(" "), maxFile+1),
	}
	for name, content := range damaged {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		var damage *DamagedError
		if _, err := LoadAdminKey(path, master); !errors.As(err, &damage) || damage.Path != path {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := CreateAdminKey(path, master, account); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: create over it: %v", name, err)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	var damage *DamagedError
	if _, err := LoadAdminKey(path, bytes.Repeat([]byte("x"), 32)); !errors.As(err, &damage) {
		t.Errorf("foreign master key: %v", err)
	}
	if _, err := LoadAdminKey(path, []byte("short")); err == nil {
		t.Error("a short master key was taken")
	}
}

func TestSecretStaysHidden(t *testing.T) {
	const text = "wJalrXUtnFEMI"
	secret := Secret(text)
	key := AccessKey{ID: "AKIA", Secret: secret}
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("x", "secret", secret, "key", key)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", secret, "key", key)
	encoded, err := json.Marshal(map[string]any{"secret": secret, "key": key})
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{
		log.String(), string(encoded), secret.String(),
		fmt.Sprint(secret, key), fmt.Sprintf("%v %+v %#v %s %q %x %d", secret, key, key, secret, secret, secret, secret),
		fmt.Errorf("oops: %v", key).Error(),
	}
	for _, s := range shown {
		if strings.Contains(s, text) || strings.Contains(s, fmt.Sprintf("%x", text)) {
			t.Errorf("shown: %s", s)
		}
	}
	if secret.Reveal() != text {
		t.Error("Reveal does not")
	}
}

func TestDerivedKeysDiffer(t *testing.T) {
	a, errA := DeriveKey(master, "one")
	b, errB := DeriveKey(master, "two")
	again, errC := DeriveKey(master, "one")
	if err := errors.Join(errA, errB, errC); err != nil {
		t.Fatal(err)
	}
	if len(a) != 32 || bytes.Equal(a, b) || !bytes.Equal(a, again) || bytes.Equal(a, master) {
		t.Error("derived keys are not separate and stable")
	}
}
