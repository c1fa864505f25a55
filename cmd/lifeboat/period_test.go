package main

import (
	"testing"
	"time"
)

func TestPeriod(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "4h": 4 * time.Hour, "1h30m": 90 * time.Minute, "100d": 100 * day, "1.5d": 36 * time.Hour, "2w": 14 * day, "-1d": -day,
	} {
		var p period
		if err := p.UnmarshalText([]byte(text)); err != nil || time.Duration(p) != want {
			t.Errorf("%q: %s, %v; want %s", text, time.Duration(p), err, want)
		}
	}
	for _, text := range []string{"", "d", "w", "4", "1e99d", "nand", "infd", "3 d", "1d2h", "1y", "ad", "0xd"} {
		var p period
		if err := p.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for %s", text, time.Duration(p))
		}
	}
}
