package main

import (
	"testing"
	"time"
)

func TestUntilTakesALocalDateAndTime(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, text := range []string{"2030-01-31 14:30", "2030-01-31T14:30:00", "2030-01-31T14:30:00Z"} {
		at, err := parseUntil(text, now)
		if want := time.Date(2030, 1, 31, 14, 30, 0, 0, time.UTC); err != nil || !at.Equal(want) {
			t.Errorf("%q: %s, %v", text, at, err)
		}
	}
	if _, err := parseUntil("2020-01-31 14:30", now); err == nil {
		t.Error("a time that is past was taken")
	}
}
