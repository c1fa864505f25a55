package vault_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
)

func TestRecordsKeepTheNewest(t *testing.T) {
	store, keys := blobtest.NewMem(), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	if _, err := v.Record(ctxOf, server); !errors.Is(err, vault.ErrAbsent) {
		t.Errorf("no record yet: %v", err)
	}
	secret := []byte(`{"hostname":"payroll"}`)
	for i := range 5 {
		for range 2 { // the second changes nothing
			if err := v.PutRecord(ctxOf, server, append(bytes.Clone(secret), byte(i)), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	records := func() (out []string) {
		for _, name := range store.Names() {
			if strings.HasSuffix(name, ".record") {
				out = append(out, name)
			}
		}
		return out
	}
	if n := records(); len(n) != 2 || !strings.HasSuffix(n[1], "/0000000000000005.record") {
		t.Fatalf("%v, want the newest two of five", n)
	}
	again := must(vault.Open(ctxOf, store, keys, vault.Options{}))(t)
	defer again.Close()
	if got := must(again.Record(ctxOf, server))(t); !bytes.Equal(got, append(bytes.Clone(secret), 4)) {
		t.Errorf("record %q", got)
	}
	for _, name := range records() {
		if bytes.Contains(store.Bytes(name), []byte("payroll")) {
			t.Errorf("%s is not encrypted", name)
		}
	}
	// Damage to the newest: the one before serves, and the next one goes on.
	last := records()[1]
	b := store.Bytes(last)
	b[len(b)-6] ^= 1
	store.Replace(last, b)
	if got := must(again.Record(ctxOf, server))(t); !bytes.Equal(got, append(bytes.Clone(secret), 3)) {
		t.Errorf("record before the damaged one: %q", got)
	}
	if err := again.PutRecord(ctxOf, server, secret, nil); err != nil {
		t.Fatal(err)
	}
	if got := must(again.Record(ctxOf, server))(t); !bytes.Equal(got, secret) {
		t.Errorf("record %q after the damage", got)
	}
	if err := again.PutRecord(ctxOf, secondServer, secret, nil); !errors.Is(err, vault.ErrAbsent) {
		t.Errorf("record of a server that is not there: %v", err)
	}
	if report, err := vault.Verify(ctxOf, store, keys, vault.Options{}, vault.VerifyOptions{}); err != nil || report.UnknownCount > 0 || len(report.Damages) != 1 {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

// The record of the vault as a whole is another thing than those of servers, and can be
// read after a change of the master key.
func TestOwnRecord(t *testing.T) {
	store, keys := blobtest.NewMem(), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	if _, err := v.OwnRecord(ctxOf); !errors.Is(err, vault.ErrAbsent) {
		t.Errorf("no record yet: %v", err)
	}
	for i := range 4 {
		if err := errors.Join(v.PutOwnRecord(ctxOf, []byte{'w', byte(i)}, nil), v.PutRecord(ctxOf, server, []byte{'s', byte(i)}, nil)); err != nil {
			t.Fatal(err)
		}
	}
	next := newKey(t)
	must(vault.Rewrap(ctxOf, store, keys, next))(t)
	must(vault.Retire(ctxOf, store, next))(t)
	again := must(vault.Open(ctxOf, store, next, vault.Options{ReadOnly: true}))(t)
	defer again.Close()
	if got := must(again.OwnRecord(ctxOf))(t); !bytes.Equal(got, []byte{'w', 3}) {
		t.Errorf("record %q", got)
	}
	if got := must(again.Record(ctxOf, server))(t); !bytes.Equal(got, []byte{'s', 3}) {
		t.Errorf("record of the server %q", got)
	}
	if err := again.PutOwnRecord(ctxOf, []byte("x"), nil); !errors.Is(err, blob.ErrReadOnly) {
		t.Errorf("put into a vault that is only read: %v", err)
	}
	if err := v.PutOwnRecord(ctxOf, make([]byte, 65<<20), nil); err == nil {
		t.Error("a record of 65 MiB was taken")
	}
	newest := "records/0000000000000004.record"
	damaged := store.Bytes(newest)
	damaged[len(damaged)-6] ^= 1
	store.Replace(newest, damaged)
	if got := must(again.OwnRecord(ctxOf))(t); !bytes.Equal(got, []byte{'w', 2}) {
		t.Errorf("record before the damaged one: %q", got)
	}
	report, err := vault.Verify(ctxOf, store, next, vault.Options{}, vault.VerifyOptions{})
	if err != nil || report.UnknownCount > 0 || len(report.Damages) != 1 || report.Damages[0].Object != newest {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

// TestRecordSurvivesAnyFault: after any failed operation the old or the new one is there.
func TestRecordSurvivesAnyFault(t *testing.T) {
	world, keys := rotationWorld(t)
	v := must(vault.Open(ctxOf, world, keys, vault.Options{}))(t)
	for i := range 3 {
		if err := v.PutRecord(ctxOf, server, []byte{byte(i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	v.Close()
	for _, outcome := range blobtest.Outcomes {
		for n, hit := 1, true; hit; n += step(1, 4) {
			store := cloneStore(t, world)
			faults := blobtest.NewFaults(store, n, outcome)
			v, err := vault.Open(ctxOf, faults, keys, vault.Options{})
			remembered := marks{}
			if err == nil {
				err = v.PutRecord(ctxOf, server, []byte("new"), remembered)
				v.Close()
			}
			hit = faults.Hit()
			v = must(vault.Open(ctxOf, store, keys, vault.Options{}))(t)
			got := string(must(v.Record(ctxOf, server))(t))
			if got != "new" && (err == nil || got != "\x02") {
				t.Fatalf("operation %d %s (%v): record %q", n, outcome, err, got)
			}
			if err := v.PutRecord(ctxOf, server, []byte("newer"), remembered); err != nil {
				t.Fatal(err)
			}
			v.Close()
		}
	}
}

// marks are what a writer remembers of the records that it puts.
type marks map[drs.SourceServerID]mark

type mark struct {
	number uint64
	sum    string
}

func (m marks) RecordMark(_ context.Context, server drs.SourceServerID) (uint64, []byte, error) {
	return m[server].number, []byte(m[server].sum), nil
}

func (m marks) SetRecordMark(_ context.Context, server drs.SourceServerID, number uint64, sum []byte) error {
	m[server] = mark{number, string(sum)}
	return nil
}

// A writer that was set back to an earlier state replaces nothing that it does not know
// of, until it is told to; one that only failed goes on.
func TestRecordsOfAWriterThatWasSetBack(t *testing.T) {
	store, keys := blobtest.NewMem(), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	now := marks{}
	put := func(m marks, text string) error {
		return errors.Join(v.PutRecord(ctxOf, server, []byte(text), m), v.PutOwnRecord(ctxOf, []byte(text), m))
	}
	check := func(m marks) error {
		return errors.Join(v.CheckRecord(ctxOf, server, m), v.CheckRecord(ctxOf, "", m))
	}
	if err := errors.Join(check(now), put(now, "a"), put(now, "b"), check(now)); err != nil {
		t.Fatal(err)
	}
	old, upgraded := maps.Clone(now), marks{}
	if err := errors.Join(put(now, "c"), check(now)); err != nil {
		t.Fatal(err)
	}
	if err := check(old); !errors.Is(err, vault.ErrNewerRecord) {
		t.Errorf("an old state: %v", err)
	}
	before := maps.Clone(old)
	for _, text := range []string{"d", "e", "f"} { // as often as it is tried
		if err := put(old, text); !errors.Is(err, vault.ErrNewerRecord) {
			t.Errorf("put from an old state: %v", err)
		}
	}
	if !maps.Equal(old, before) {
		t.Errorf("refused puts have left marks: %v", old)
	}
	if got := string(must(v.OwnRecord(ctxOf))(t)) + string(must(v.Record(ctxOf, server))(t)); got != "cc" {
		t.Errorf("the vault keeps %q", got)
	}
	if err := errors.Join(v.MarkRecord(ctxOf, server, old), v.MarkRecord(ctxOf, "", old), check(old), put(old, "d"), check(old)); err != nil {
		t.Errorf("told to go on from the old state: %v", err)
	}
	if err := check(now); !errors.Is(err, vault.ErrNewerRecord) {
		t.Errorf("the other one, which is now old: %v", err)
	}
	if err := errors.Join(check(upgraded), put(upgraded, "g"), check(upgraded)); err != nil {
		t.Errorf("a state without marks: %v", err)
	}

	// Set back to the moment between a mark and its put, under the same number.
	twin := maps.Clone(upgraded)
	for id, m := range twin {
		sum := sha256.Sum256([]byte("other"))
		twin[id] = mark{m.number, string(sum[:])}
	}
	if err := put(twin, "h"); !errors.Is(err, vault.ErrNewerRecord) {
		t.Errorf("another record under the same number: %v", err)
	}

	// A put that arrives after its writer gave it up.
	slow := maps.Clone(upgraded)
	if err := put(slow, "late"); err != nil {
		t.Fatal(err)
	}
	names := store.Names()
	late := names[slices.IndexFunc(names, func(n string) bool {
		return strings.HasPrefix(n, "records/") && strings.HasSuffix(n, fmt.Sprintf("%016x.record", slow[""].number))
	})]
	held := store.Bytes(late)
	if err := store.Delete(ctxOf, late); err != nil {
		t.Fatal(err)
	}
	if err := v.PutOwnRecord(ctxOf, []byte("on time"), slow); err != nil {
		t.Fatal(err)
	}
	if err := store.PutIfAbsent(ctxOf, late, held); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.CheckRecord(ctxOf, "", slow), v.PutOwnRecord(ctxOf, []byte("after"), slow)); err != nil {
		t.Errorf("after a late arrival: %v", err)
	}
	if got := string(must(v.OwnRecord(ctxOf))(t)); got != "after" {
		t.Errorf("the vault keeps %q", got)
	}
}

func TestOneOwnerAtATime(t *testing.T) {
	store, keys := rotationWorld(t)
	v := must(vault.Open(ctxOf, store, keys, vault.Options{}))(t)
	defer v.Close()
	if _, err := v.CurrentOwner(ctxOf); !errors.Is(err, vault.ErrAbsent) {
		t.Errorf("nobody's vault: %v", err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a := vault.Owner{Installation: "a", Host: "alpha", Since: at}
	b := vault.Owner{Installation: "b", Host: "beta", Since: at}
	first := must(v.Own(ctxOf, a, false))(t)
	if err := first.Check(ctxOf); err != nil {
		t.Error(err)
	}
	var owned *vault.OwnedError
	if _, err := v.Own(ctxOf, b, false); !errors.As(err, &owned) || owned.Owner != a {
		t.Errorf("a second installation: %v", err)
	}
	if err := first.Check(ctxOf); err != nil {
		t.Errorf("after a refused one: %v", err)
	}
	restarted := must(v.Own(ctxOf, a, false))(t)
	if err := first.Check(ctxOf); !errors.Is(err, vault.ErrDisowned) {
		t.Errorf("a process that was replaced: %v", err)
	}
	other := must(v.Own(ctxOf, b, true))(t)
	if err := restarted.Check(ctxOf); !errors.Is(err, vault.ErrDisowned) {
		t.Errorf("an installation that was replaced: %v", err)
	}
	if err := other.Check(ctxOf); err != nil {
		t.Error(err)
	}
	if now := must(v.CurrentOwner(ctxOf))(t); now != b {
		t.Errorf("owner %+v", now)
	}
	for i := range 5 {
		must(v.Own(ctxOf, vault.Owner{Installation: fmt.Sprint(i)}, true))(t)
	}
	owners := 0
	for _, name := range store.Names() {
		if strings.HasPrefix(name, "owners/") {
			owners++
		}
	}
	if owners != 2 {
		t.Errorf("%d owner objects are kept, want 2", owners)
	}
}
