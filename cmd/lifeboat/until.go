package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// until is a flag: a time to come.
type until struct{ at time.Time }

// UnmarshalText implements the flag.
func (u *until) UnmarshalText(text []byte) error {
	at, err := parseUntil(string(text), time.Now())
	u.at = at
	return err
}

func parseUntil(text string, now time.Time) (at time.Time, err error) {
	days, isDays := strings.CutSuffix(text, "d")
	n, daysErr := strconv.Atoi(days)
	after, afterErr := time.ParseDuration(text)
	full, fullErr := time.Parse(time.RFC3339, text)
	date, dateErr := time.ParseInLocation(time.DateOnly, text, now.Location())
	for _, form := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if dateErr != nil {
			date, dateErr = time.ParseInLocation(form, text, now.Location())
		}
	}
	switch {
	case isDays && daysErr == nil && n <= 100_000:
		at = now.AddDate(0, 0, n)
	case afterErr == nil:
		at = now.Add(after)
	case fullErr == nil:
		at = full
	case dateErr == nil:
		at = date
	default:
		return at, fmt.Errorf("%q is no time to come: want a date such as 2030-01-31 or \"2030-01-31 14:30\", RFC 3339, or a span such as 90d or 12h", text)
	}
	if !at.After(now) {
		return at, fmt.Errorf("%s is past: want a time to come", text)
	}
	return at, nil
}
