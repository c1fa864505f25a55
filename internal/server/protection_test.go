package server

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

// What the vault held of a server that was dropped is put anew when the server gets
// a place again, though nothing of it has changed; and nothing is put meanwhile.
func TestRecordsFollowTheServersPlace(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	d, err := db.Create(ctx, filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	store, err := blob.CreateDir(filepath.Join(dir, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := vault.CreateKeyFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Create(ctx, store, keys, vault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	server, _, err := d.RegisterServer(ctx, db.Registration{Account: drs.Account{ID: "123456789012", Region: "us-east-1"}, HardwareID: "one"})
	if err != nil {
		t.Fatal(err)
	}
	guarded := protectedVault{v, newRecorder(d, v, t.TempDir(), slog.New(slog.DiscardHandler))}
	recorded := func() bool {
		_, err := v.Record(context.WithoutCancel(ctx), server.ID)
		return err == nil
	}
	for range 2 {
		if err := guarded.CreateServer(ctx, server.ID); err != nil {
			t.Fatal(err)
		}
		guarded.records.keepAll(ctx)
		if !recorded() {
			t.Error("the server has no record")
		}
		if err := guarded.DropServer(ctx, server.ID); err != nil {
			t.Fatal(err)
		}
		if recorded() {
			t.Error("a dropped server has a record")
		}
	}
	if err := guarded.CreateServer(ctx, server.ID); err != nil {
		t.Fatal(err)
	}
	err = guarded.records.without(server.ID, func() error {
		guarded.records.keepAll(ctx)
		return nil
	})
	if err != nil || recorded() {
		t.Errorf("a record was put while its place was deleted: %v", err)
	}
}
