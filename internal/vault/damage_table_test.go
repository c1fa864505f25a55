package vault_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/blobtest"
)

// kindsOfObjects are the endings of all names in a vault, as docs/formats lists them, and
// whether damage to a single such object leaves every recovery point readable.
var kindsOfObjects = map[string]bool{
	"root": false, "key": false, "manifest": false, "segment": false,
	"checkpoint": true, "pack": true, "run": true, "trace": true,
	"record": true, "owner": true, "clock": true,
}

// tableWorld has objects of each kind, two at least where a vault has more than one, and is
// closed. The newest documents say new, those before old.
func tableWorld(t *testing.T) (*blobtest.Mem, *history) {
	t.Helper()
	store, h := foldedWorld(t)
	v := must(vault.Open(ctxOf, store, h.keys, vault.Options{}.Small()))(t)
	defer v.Close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(v.Fork(ctxOf, server, point(h.acked-1).ID, "i-1"))
	check(v.CreateServer(ctxOf, secondServer))
	for i, text := range []string{"old", "new"} {
		check(v.PutRecord(ctxOf, server, []byte(text), nil))
		check(v.PutOwnRecord(ctxOf, []byte(text), nil))
		check(v.KeepClock(ctxOf))
		check(v.SaveTrace(ctxOf, server, vault.Trace{{Volume: 1, Chunk: uint32(i), Count: 1}}))
		must(v.Own(ctxOf, vault.Owner{Installation: "a", Host: text, Since: upkeepClock().Add(time.Duration(i))}, false))(t)
	}
	v.WaitTasks()
	return store, h
}

func kindOf(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// damages are the objects to put in place of those of a vault, by what was done. Nil is
// what nothing could be done for.
func damages(world, foreign objects, name string) map[string]map[string][]byte {
	whole := world.Bytes(name)
	flip := func(at int) map[string][]byte {
		b := slices.Clone(whole)
		b[at] ^= 1 << (at % 8)
		return map[string][]byte{name: b}
	}
	middle := rand.IntN(len(whole))
	out := map[string]map[string][]byte{
		"flip in its header":              flip(20),
		fmt.Sprintf("flip at %d", middle): flip(middle),
		"flip at its end":                 flip(len(whole) - 1),
		"cut in half":                     {name: whole[:len(whole)/2]},
		"cut by a byte":                   {name: whole[:len(whole)-1]},
		"empty":                           {name: {}},
		"newer":                           {name: newer(name, whole)},
	}
	for _, other := range world.Names() {
		if other != name && kindOf(other) == kindOf(name) {
			if out["it is "+other] = (map[string][]byte{name: world.Bytes(other)}); !kindsOfObjects[kindOf(name)] {
				out["swap with "+other] = map[string][]byte{name: world.Bytes(other), other: whole}
			}
			break
		}
	}
	for _, other := range foreign.Names() {
		if kindOf(other) == kindOf(name) && (other == name || kindOf(name) == "segment" || kindOf(name) == "run") {
			out["of another vault"] = map[string][]byte{name: foreign.Bytes(other)}
			break
		}
	}
	return out
}

// newer is an object as a version to come might write it.
func newer(name string, whole []byte) []byte {
	b := slices.Clone(whole)
	versions := []int{8}
	if kindOf(name) == "segment" {
		versions = append(versions, len(b)-208+8) // its footer repeats the header
	}
	for _, at := range versions {
		binary.LittleEndian.PutUint16(b[at:], binary.LittleEndian.Uint16(b[at:])+1)
	}
	return b
}

// readEach reads all points that a sound vault has, and the head of its other branch, in a
// process of its own, and returns the errors. Data that is wrong fails the test.
func (h *history) readEach(t *testing.T, store objects, points []drs.RecoveryPoint) map[drs.RecoverySnapshotID]error {
	t.Helper()
	errs := map[drs.RecoverySnapshotID]error{}
	v, err := vault.Open(ctxOf, store, h.keys, upkeepOptions())
	if err != nil {
		for _, p := range points {
			errs[p.ID] = err
		}
		return errs
	}
	defer func() {
		v.WaitTasks()
		v.Close()
	}()
	read := func(n int, open func() (*vault.Image, error)) error {
		img, err := open()
		if err != nil {
			return err
		}
		defer img.Close()
		r, err := img.Volume(1)
		if err != nil {
			return err
		}
		got := make([]byte, h.contents[n].size)
		if n, err := r.ReadAt(got, 0); n < len(got) {
			return err
		}
		if firstDifference(got, h.contents[n].data) >= 0 {
			t.Fatalf("point %d reads wrong, without an error", n)
		}
		return nil
	}
	for _, p := range points {
		if err := read(int(lastPoint(&p)), func() (*vault.Image, error) { return v.OpenPoint(ctxOf, server, p.ID) }); err != nil {
			errs[p.ID] = err
		}
	}
	if err := read(h.acked-1, func() (*vault.Image, error) { return v.OpenHead(ctxOf, server, "i-1") }); err != nil {
		errs["i-1"] = err
	}
	return errs
}

// TestDamageTable: whatever happens to one object of any kind, it is never returned as
// data, errors and a verification name it, the verification names exactly the points that
// cannot be read any more, upkeep goes on without destroying anything, and once the object
// is put back all points read as ever.
func TestDamageTable(t *testing.T) {
	t.Parallel()
	world, h := tableWorld(t)
	foreign, _ := tableWorld(t)
	v := must(vault.Open(ctxOf, world, h.keys, upkeepOptions()))(t)
	points := must(v.Points(ctxOf, server))(t)
	v.Close()
	if errs := h.readEach(t, world, points); len(errs) > 0 || len(points) < 5 {
		t.Fatalf("%d points in a sound vault: %v", len(points), errs)
	}
	byKind := map[string][]string{}
	for _, name := range world.Names() {
		byKind[kindOf(name)] = append(byKind[kindOf(name)], name)
	}
	if got, want := slices.Sorted(maps.Keys(byKind)), slices.Sorted(maps.Keys(kindsOfObjects)); !slices.Equal(got, want) {
		t.Fatalf("objects of kinds %v, want %v", got, want)
	}
	for _, kind := range some(slices.Sorted(maps.Keys(byKind)), 4) {
		names := byKind[kind]
		for _, name := range some(slices.Compact([]string{names[0], names[rand.IntN(len(names))], names[len(names)-1]}), 2) {
			cases := damages(world, foreign, name)
			for _, what := range some(slices.Sorted(maps.Keys(cases)), 2) {
				c := tableCase{h, points, name, what, cases[what]}
				c.run(t, world)
			}
		}
	}
}

// tableCase is one line of the table.
type tableCase struct {
	*history
	points []drs.RecoveryPoint
	name   string
	what   string
	put    map[string][]byte
}

func (c tableCase) run(t *testing.T, world *blobtest.Mem) {
	t.Helper()
	store := copyOf(t, world)
	for name, content := range c.put {
		store.Replace(name, content)
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s, %s: "+format, append([]any{c.name, c.what}, args...)...)
	}
	report, verified := vault.Verify(ctxOf, store, c.keys, upkeepOptions(), vault.VerifyOptions{}) // reading heals some
	keyless, scrubbed := vault.Scrub(ctxOf, store, vault.VerifyOptions{})
	if scrubbed != nil || keyless.Sound() && c.what != "of another vault" {
		fail("a scrub without key: %v, %+v", scrubbed, keyless)
	}
	errs := c.readEach(t, store, c.points)
	for id, err := range errs {
		switch {
		case c.what == "newer" && !errors.Is(err, vault.ErrNewerFormat):
			fail("%s: %v, want that a newer version wrote it", id, err)
		case !detected(err):
			fail("%s: %v, want the damage", id, err)
		case !c.names(err.Error()) && !c.key(err) && !c.follows(report, err):
			fail("%s: %v does not name it", id, err)
		}
	}
	if kindsOfObjects[kindOf(c.name)] && c.what != "newer" && len(errs) > 0 {
		fail("cannot be read: %v", errs)
	}
	c.verified(report, verified, errs, fail)
	c.documents(t, store, fail)
	c.upkeep(t, store, fail)
	for name := range c.put {
		store.Replace(name, world.Bytes(name))
	}
	if errs := c.readEach(t, store, c.points); len(errs) > 0 {
		fail("put back after upkeep: %v", errs)
	}
}

// names tells whether a text names an object that is not what it should be.
func (c tableCase) names(text string) bool {
	for name := range c.put {
		if strings.Contains(text, name) {
			return true
		}
	}
	return false
}

// follows tells whether an error names what is damage in consequence: before the manifest of
// a fold, other segments were needed, which are gone.
func (c tableCase) follows(report vault.VerifyReport, err error) bool {
	return kindOf(c.name) == "manifest" && slices.ContainsFunc(report.Damages, func(d vault.Damage) bool {
		return strings.HasPrefix(d.Reason, "absent") && strings.Contains(err.Error(), d.Object)
	})
}

// key tells whether an error says that a key is not of this vault, in place of an object.
func (c tableCase) key(err error) bool {
	return c.what == "of another vault" && (kindOf(c.name) == "root" || kindOf(c.name) == "key") && errors.Is(err, vault.ErrWrongKey)
}

// verified compares what a verification told with what can be read.
func (c tableCase) verified(report vault.VerifyReport, err error, errs map[drs.RecoverySnapshotID]error, fail func(string, ...any)) {
	if err != nil { // a vault that cannot be opened
		if refused := kindOf(c.name) == "root" || c.what == "newer" && kindOf(c.name) == "clock"; !refused || !c.names(err.Error()) && !c.key(err) {
			fail("verify: %v", err)
		}
		return
	}
	if slices.ContainsFunc(report.Servers, func(s vault.ServerVerdict) bool { return strings.Contains(s.Err, "wrong master key") }) &&
		c.what == "of another vault" && kindOf(c.name) == "key" {
		return
	}
	at := slices.IndexFunc(report.Damages, func(d vault.Damage) bool { return d.Object == c.name })
	if at < 0 {
		fail("verify does not name it: %+v", report)
		return
	}
	if d := report.Damages[at]; c.what == "newer" && !strings.Contains(d.Reason, "upgrade") {
		fail("verify does not tell that it is newer: %+v", d)
	}
	var hurt []drs.RecoverySnapshotID
	want := slices.DeleteFunc(slices.Sorted(maps.Keys(errs)), func(id drs.RecoverySnapshotID) bool { return id == "i-1" })
	for _, s := range report.Servers {
		if s.Server != server {
			continue
		}
		if s.Err != "" { // the vault itself does not know the points
			return
		}
		hurt = slices.DeleteFunc(slices.Sorted(slices.Values(s.Hurt)), func(id drs.RecoverySnapshotID) bool {
			return !slices.ContainsFunc(c.points, func(p drs.RecoveryPoint) bool { return p.ID == id }) // the lost manifest gave it up
		})
		if report.Damages[at].PointsUnknown { // the only object with a point's name may be this one
			want = slices.DeleteFunc(want, func(id drs.RecoverySnapshotID) bool {
				return !slices.Contains(s.Hurt, id) && !slices.Contains(s.Unhurt, id)
			})
		}
	}
	if !slices.Equal(hurt, want) {
		fail("verify tells %v hurt, want %v\n%+v", hurt, want, report)
	}
}

// documents: the newest that is whole counts, or the damage is told.
func (c tableCase) documents(t *testing.T, store objects, fail func(string, ...any)) {
	t.Helper()
	v, err := vault.Open(ctxOf, store, c.keys, vault.Options{ReadOnly: true}.Small())
	if err != nil {
		if kind := kindOf(c.name); !detected(err) || kind != "root" && kind != "clock" {
			fail("open: %v", err)
		}
		return
	}
	defer v.Close()
	for what, read := range map[string]func() ([]byte, error){
		"record":     func() ([]byte, error) { return v.Record(ctxOf, server) },
		"own record": func() ([]byte, error) { return v.OwnRecord(ctxOf) },
		"owner": func() ([]byte, error) {
			owner, err := v.CurrentOwner(ctxOf)
			return []byte(owner.Host), err
		},
	} {
		got, err := read()
		switch {
		case err != nil && (!detected(err) || !c.names(err.Error()) && !c.key(err)):
			fail("%s: %v", what, err)
		case err != nil && kindOf(c.name) != "key" && c.what != "newer":
			fail("%s: %v, although the one before is whole", what, err)
		case err == nil && string(got) != "new" && string(got) != "old":
			fail("%s: %q", what, got)
		case err == nil && string(got) == "old" && kindOf(c.name) != "record" && kindOf(c.name) != "owner":
			fail("%s: an old one", what)
		}
	}
}

// upkeep does what a server does all day. It may fail of the damage only.
func (c tableCase) upkeep(t *testing.T, store objects, fail func(string, ...any)) {
	t.Helper()
	v, err := vault.Open(ctxOf, store, c.keys, upkeepOptions())
	if err != nil {
		return // told already
	}
	defer v.Close()
	for range 2 {
		if _, err := v.Maintain(ctxOf, server, upkeepPolicy, upkeepClock()); err != nil && !detected(err) {
			fail("maintain: %v", err)
		}
		if _, err := v.Collect(ctxOf, server); err != nil && !detected(err) {
			fail("collect: %v", err)
		}
	}
	v.WaitTasks()
}
