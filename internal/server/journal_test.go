package server

import (
	"strings"
	"testing"
	"time"
)

// What a start was told is what later starts and upkeep without a server go by.
func TestJournalIsKept(t *testing.T) {
	path := t.TempDir()
	first, err := (&Config{Data: path}).first()
	if err != nil {
		t.Fatal(err)
	}
	d, _, err := openDataDir(t.Context(), path, first)
	if err != nil {
		t.Fatal(err)
	}
	start := func(named *time.Duration, want time.Duration) {
		t.Helper()
		if got, err := d.keepJournal(named); err != nil || got != want {
			t.Fatalf("the start goes by %s, %v; want %s", got, err, want)
		}
		if err := d.writeSettings(); err != nil {
			t.Fatal(err)
		}
		if d.Settings, err = settingsOf(path); err != nil {
			t.Fatal(err)
		}
	}
	offline := func(named *time.Duration, want time.Duration, may bool) {
		t.Helper()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		u, err := OpenUpkeep(t.Context(), path, named)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := u.Journal(); got != want || u.work.journal != want || (u.MayTidy() == nil) != may {
			t.Errorf("upkeep goes by %s and %s, %v; want %s, %v", got, u.work.journal, u.MayTidy(), want, may)
		}
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
		if d, err = lockDataDir(path); err != nil {
			t.Fatal(err)
		}
	}
	long, short := 72*time.Hour, time.Minute
	offline(nil, 0, false) // no start has said it
	offline(&short, short, true)
	start(nil, DefaultJournal)
	offline(nil, DefaultJournal, true)
	start(&long, long)
	start(nil, long)
	offline(nil, long, true)
	offline(&short, short, true) // for this once
	start(nil, long)

	d.Settings.Journal = "three days"
	if err := d.writeSettings(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenUpkeep(t.Context(), path, nil); err == nil || !strings.Contains(err.Error(), "lifeboat.json") {
		t.Errorf("a window that cannot be read: %v", err)
	}
}

func settingsOf(path string) (Settings, error) {
	d, err := ReadDataDir(path)
	if err != nil {
		return Settings{}, err
	}
	return d.Settings, nil
}
