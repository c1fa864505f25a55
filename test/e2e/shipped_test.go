package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/demo/guest"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

// record is what the vault at a path keeps of a server.
func (in *installation) record(t *testing.T, path, server string) string {
	t.Helper()
	store, err := blob.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	keys, err := vault.LoadKeyFile(filepath.Join(in.dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(t.Context(), store, keys, vault.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	text, err := v.Record(t.Context(), drs.SourceServerID(server))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The host that a recovery runs on is lost with everything on it, but the vault and the
// master key are elsewhere: on a new server the machine starts from what was shipped, a
// moment of its disk that holds every order it had confirmed before that.
func TestARecoveryOutlivesItsHost(t *testing.T) {
	store := filepath.Join(t.TempDir(), "vault")
	in := installAt(t, filepath.Join(t.TempDir(), "data"), "--vault", "file:"+store)
	image := filepath.Join(t.TempDir(), "shop.img")
	if err := guest.Build(t.Context(), guest.Spec{Hostname: "shop", Orders: &guest.Orders{PerSecond: 10}}, image); err != nil {
		t.Fatal(err)
	}
	agent, server := in.startAgent(t, image, "--hostname", "shop")
	agent.kill()
	instance := in.launched(t, in.recover(t, server, false))
	console := in.console(t, instance)
	see(t, console, see(t, console, 0, guest.WorkloadRunning).Next, guest.OrderDurable)

	confirmed := console.LastDurable()
	note := filepath.Join(in.dir, "instances", instance, "shipped.json")
	for range 2 { // the first shipment may have begun before the order was confirmed
		before, _ := os.ReadFile(note)
		eventually(t, "what the machine writes is shipped", func() (string, bool) {
			now, _ := os.ReadFile(note)
			return string(now), len(now) > 0 && !bytes.Equal(now, before)
		})
	}
	eventually(t, "the vault knows the instance", func() (string, bool) {
		record := in.record(t, store, server)
		return record, strings.Contains(record, instance)
	})
	key := filepath.Join(t.TempDir(), "master.key")
	text, err := os.ReadFile(filepath.Join(in.dir, "master.key"))
	if err == nil {
		err = os.WriteFile(key, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}

	in.server.kill()
	if err := in.rig.QuitMachines(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(in.dir); err != nil {
		t.Fatal(err)
	}

	second := &installation{dir: filepath.Join(t.TempDir(), "data")}
	second.rig = in.rig
	second.rig.Dir = filepath.Dir(second.dir)
	t.Cleanup(func() {
		if err := second.rig.QuitMachines(); err != nil {
			t.Error(err)
		}
	})
	out := must(t, "vault", "rebuild", "--data", second.dir, "--master-key", key, "--vault", "file:"+store)
	if !strings.Contains(out, "--from-vault") || !strings.Contains(out, instance) {
		t.Errorf("rebuild does not tell of the instance: %s", out)
	}
	second.startServer(t, "--listen", "127.0.0.1:0", "--replication-listen", "127.0.0.1:0")
	_, errs, code := lifeboat(t, second.env, "start", instance)
	if code == 0 || !strings.Contains(errs, "lifeboat start "+instance+" --from-vault") {
		t.Errorf("start without disks: exit %d: %s", code, errs)
	}
	if _, errs, code := lifeboat(t, second.env, "start", instance, "--from-vault"); code != 0 {
		t.Fatalf("start from the vault: exit %d: %s", code, errs)
	}
	found := see(t, second.console(t, instance), 0, guest.OrdersFound)
	ledger, err := guest.ParseLedger(found)
	if err != nil {
		t.Fatal(err)
	}
	if !ledger.Whole() || ledger.Last < confirmed {
		t.Errorf("order %d was confirmed before the last shipment; the machine found %+v", confirmed, ledger)
	}
	see(t, second.console(t, instance), found.Next, guest.OrderDurable)
}
