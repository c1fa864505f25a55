package guest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/demo/guest"
)

// bootLimit only keeps a hung machine from hanging the test; a boot takes about
// ten seconds when emulated.
const bootLimit = 4 * time.Minute

func start(t *testing.T, cfg guest.Config) *guest.Machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
	t.Cleanup(cancel)
	machine, err := guest.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(machine.Kill)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", machine.Console.Tail(40))
		}
	})
	return machine
}

func await(t *testing.T, m *guest.Machine, from int, pattern *regexp.Regexp) guest.Match {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
	defer cancel()
	match, err := m.Console.Wait(ctx, from, pattern)
	if err != nil {
		t.Fatal(err)
	}
	return match
}

func build(t *testing.T, spec guest.Spec) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := guest.Build(context.Background(), spec, image); err != nil {
		t.Fatal(err)
	}
	return image
}

// A machine killed while it takes orders comes back with every order that its
// console had called durable, and takes new ones.
func TestOrdersSurvivePowerCut(t *testing.T) {
	image := build(t, guest.Spec{Hostname: "shop-1", Orders: &guest.Orders{PerSecond: 20}})

	first := start(t, guest.Config{Image: image})
	if booted := await(t, first, 0, guest.Booted); booted.Groups[1] != "shop-1" {
		t.Errorf("booted as %q, want shop-1", booted.Groups[1])
	}
	ledger, err := guest.ParseLedger(await(t, first, 0, guest.OrdersFound))
	if err != nil || ledger != (guest.Ledger{}) {
		t.Fatalf("a new machine found %+v, %v; want no orders", ledger, err)
	}
	await(t, first, 0, regexp.MustCompile(`^order 12 durable$`))
	first.Kill()
	acknowledged := first.Console.LastDurable()

	second := start(t, guest.Config{Image: image})
	found := await(t, second, 0, guest.OrdersFound)
	ledger, err = guest.ParseLedger(found)
	if err != nil {
		t.Fatal(err)
	}
	// The order being written at the kill may be there too: it was not yet promised.
	if ledger.First != 1 || ledger.Last < acknowledged || ledger.Last > acknowledged+1 || !ledger.Whole() {
		t.Errorf("after the kill: %+v, want 1 to %d or one more", ledger, acknowledged)
	}
	next := await(t, second, found.Next, guest.OrderDurable)
	if want := strconv.Itoa(ledger.Last + 1); next.Groups[1] != want {
		t.Errorf("the first new order is %s, want %s", next.Groups[1], want)
	}
	await(t, second, 0, guest.WorkloadRunning)
}

// A ledger that was damaged is reported as it is.
func TestOrdersTellDamage(t *testing.T) {
	line := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return text + " sha256=" + hexOf(sum[:]) + "\n"
	}
	ledger := line("000001 2026-01-31T12:00:00Z 1 x tea, table 1") +
		line("000002 2026-01-31T12:00:01Z 2 x tea, table 2") +
		strings.Replace(line("000003 2026-01-31T12:00:02Z 3 x tea, table 3"), "3 x tea", "9 x tea", 1) +
		line("000005 2026-01-31T12:00:03Z 1 x tea, table 4") +
		line("000005 2026-01-31T12:00:04Z 1 x tea, table 4") +
		"000006 2026-01-31T12:00:0"
	image := build(t, guest.Spec{
		Orders: &guest.Orders{PerSecond: 1},
		Files:  map[string][]byte{"/var/lib/orders/ledger": []byte(ledger)},
	})
	machine := start(t, guest.Config{Image: image})
	got, err := guest.ParseLedger(await(t, machine, 0, guest.OrdersFound))
	if want := (guest.Ledger{First: 1, Last: 5, Missing: 2, Torn: 2, Repeated: 1}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// A UEFI machine boots, and shows the files it was given.
func TestUEFIShowsFiles(t *testing.T) {
	content := []byte("the quick brown fox\njumps over 13 lazy dogs\n")
	image := build(t, guest.Spec{
		Firmware: guest.UEFI,
		Files:    map[string][]byte{"/srv/known/fox.txt": content},
	})
	machine := start(t, guest.Config{Image: image, Firmware: guest.UEFI})
	sum := sha256.Sum256(content)
	head := await(t, machine, 0, regexp.MustCompile(`^FILE /srv/known/fox.txt sha256=`+hexOf(sum[:])+`$`))
	end := await(t, machine, head.Next, regexp.MustCompile(`^END /srv/known/fox.txt$`))
	var shown []string
	for _, line := range machine.Console.Lines(head.Next)[:end.Next-head.Next-1] {
		shown = append(shown, line.Text)
	}
	if got := strings.Join(shown, "\n") + "\n"; got != string(content) {
		t.Errorf("the console shows %q, want %q", got, content)
	}
}

func TestBuildRefuses(t *testing.T) {
	taken := filepath.Join(t.TempDir(), "taken")
	if err := os.WriteFile(taken, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	for name, c := range map[string]struct {
		spec guest.Spec
		path string
		want string
	}{
		"existing file":     {guest.Spec{}, taken, "exists already"},
		"tiny disk":         {guest.Spec{SizeMiB: 8}, fresh, "at least"},
		"strange hostname":  {guest.Spec{Hostname: "a b"}, fresh, "hostname"},
		"unknown firmware":  {guest.Spec{Firmware: "openboot"}, fresh, "firmware"},
		"too many orders":   {guest.Spec{Orders: &guest.Orders{PerSecond: 1000}}, fresh, "orders per second"},
		"relative file":     {guest.Spec{Files: map[string][]byte{"../x": nil}}, fresh, "absolute path"},
		"disk overfilled":   {guest.Spec{SizeMiB: 96, Files: map[string][]byte{"/big": bytes.Repeat([]byte("full"), 24<<20)}}, fresh, "mke2fs"},
		"missing directory": {guest.Spec{}, filepath.Join(t.TempDir(), "a", "b"), "no such file"},
	} {
		err := guest.Build(context.Background(), c.spec, c.path)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	if data, err := os.ReadFile(taken); err != nil || string(data) != "mine" {
		t.Errorf("a file in the way was touched: %q, %v", data, err)
	}
	if _, err := os.Lstat(fresh); !os.IsNotExist(err) {
		t.Errorf("a refused build left something: %v", err)
	}
}

func hexOf(sum []byte) string { return hex.EncodeToString(sum) }
