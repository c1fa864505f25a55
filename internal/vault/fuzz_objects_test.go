package vault

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/seal"
)

// FuzzServerKey reads arbitrary bodies of a server's wrapped key.
func FuzzServerKey(f *testing.F) {
	const server = drs.SourceServerID("s-0123456789abcdef0")
	f.Add([]byte{})
	f.Add(wrappedKey{"key-id", []byte("sealed")}.put(nil))
	f.Fuzz(func(t *testing.T, body []byte) {
		store := blobtest.NewMem()
		stored, _, err := envelope.Encode(envelope.Header{Kind: envelope.ServerKey, Number: 1, Server: string(server)}, seal.Key{}, body)
		if err != nil {
			t.Fatal(err)
		}
		store.Replace(keyName(server, 1), stored)
		got, err := readDataKey(context.Background(), store, server, []uint64{1}, nil)
		if corrupt, _ := errors.AsType[*CorruptError](err); err != nil && corrupt == nil {
			t.Fatalf("%v: want a CorruptError", err)
		}
		if err == nil && !bytes.Equal(got.put(nil), body) {
			t.Fatal("a decoded key encodes to other bytes")
		}
	})
}

// stoppedClocks show one time for ever.
type stoppedClocks struct{}

func (stoppedClocks) Wall() time.Time                 { return time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) }
func (stoppedClocks) Uptime() (string, time.Duration) { return "run", time.Hour }

// FuzzDocuments reads arbitrary documents about the vault's owner and its clock: they are
// damaged, or what they say is bounded.
func FuzzDocuments(f *testing.F) {
	f.Add([]byte(`{"installation":"x","host":"h","since":"2026-03-01T00:00:00Z"}`))
	f.Add([]byte(`{"time":"2026-03-01T00:00:00Z","wall":"2026-03-01T00:00:00Z","run":"run","up":60000000000}`))
	f.Add([]byte(`{"time":"9999-12-31T23:59:59Z","wall":"0001-01-01T00:00:00Z","run":"run","up":-9223372036854775808}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		store := blobtest.NewMem()
		v := &Vault{store: store, cipher: seal.None, log: slog.New(slog.DiscardHandler)}
		for kind, name := range map[envelope.Kind]string{envelope.Owner: ownerName(1), envelope.Clock: clockName(1)} {
			stored, _, err := envelope.Encode(envelope.Header{Kind: kind, Number: 1}, seal.Key{}, body)
			if err != nil {
				t.Fatal(err)
			}
			store.Replace(name, stored)
		}
		_, _, err := v.owner(context.Background())
		if corrupt, _ := errors.AsType[*CorruptError](err); err != nil && corrupt == nil {
			t.Fatalf("owner: %v: want a CorruptError", err)
		}
		if err := v.startClock(context.Background(), stoppedClocks{}); err != nil {
			t.Fatalf("clock: %v: want it to go on", err)
		}
		if now := v.clock.now(); now.Before(earliest) || now.After(latest) {
			t.Fatalf("the clock shows %s", now)
		}
	})
}

// FuzzNames looks at arbitrary names, as a listing may bring them: those that are taken
// for the vault's own are spelt as the vault spells them.
func FuzzNames(f *testing.F) {
	const server = drs.SourceServerID("s-0123456789abcdef0")
	for _, name := range []string{
		rootName(1), keyName(server, 2), manifestName(server, MainBranch, 3), ownerName(4), clockName(5), "records/0000000000000001.record",
		serverFolder(server) + "segments/00.segment", serverFolder(server) + "maps/1-00.run", "servers//", "servers/../x",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p := placeOf(name)
		if p.kind == kindUnknown {
			return
		}
		if blob.CheckName(name) != nil && !strings.ContainsAny(name, "\x00") {
			return // no store lists it
		}
		if p.server != "" && !strings.Contains(name, string(p.server)) {
			t.Errorf("%q is taken for one of %s", name, p.server)
		}
		if p.branch != "" && !strings.Contains(name, "/"+p.branch+"/") {
			t.Errorf("%q is taken for one of branch %s", name, p.branch)
		}
		_ = numbered([]string{name}, ".manifest")
		_ = folders([]string{name})
	})
}

// FuzzShare: what parses prints as it was given, and picks within its bounds.
func FuzzShare(f *testing.F) {
	f.Add("3/5")
	f.Add("0/0")
	f.Add("1/18446744073709551616")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseShare(text)
		if err != nil {
			return
		}
		again, err := ParseShare(s.String())
		if err != nil || again != s {
			t.Fatalf("%q is %+v, which prints as %s: %v", text, s, s, err)
		}
	})
}
