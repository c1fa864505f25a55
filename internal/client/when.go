package client

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ParseMoment reads a moment in the past as people give it: RFC 3339; a date
// and time of day without a zone (the local one is meant); a time of day alone
// (its latest occurrence); or how long ago: 15m, 2h30m, 3d, 5 minutes ago.
//
// Tables show seconds and JSON shows milliseconds, and both cut off the rest: a
// second or a millisecond means all of it, so that a point is found again by the
// time that was shown for it.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	text = strings.TrimSpace(text)
	if ago, ok := parseAgo(text); ok {
		return now.Add(-ago), nil
	}
	at, ok := parseClock(text, now)
	if !ok {
		return time.Time{}, fmt.Errorf("%q is no moment: want one like 2006-01-02T15:04:05Z, \"2006-01-02 15:04\", 15:04, 15m or \"2 hours ago\"", text)
	}
	if at.After(now) && !at.Truncate(time.Second).Equal(now.Truncate(time.Second)) {
		return time.Time{}, fmt.Errorf("%q is in the future: it is %s now", text, now.Format(time.RFC3339))
	}
	return at, nil
}

func parseClock(text string, now time.Time) (time.Time, bool) {
	if at, err := time.Parse(time.RFC3339Nano, strings.Replace(text, " ", "T", 1)); err == nil {
		return wholeOf(text, at), true
	}
	for _, form := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return wholeOf(text, at), true
		}
	}
	for _, form := range []string{"15:04:05", "15:04"} {
		at, err := time.ParseInLocation(form, text, now.Location())
		if err != nil {
			continue
		}
		y, m, d := now.Date()
		at = time.Date(y, m, d, at.Hour(), at.Minute(), at.Second(), 0, now.Location())
		if at.After(now) {
			at = at.AddDate(0, 0, -1)
		}
		return wholeOf(text, at), true
	}
	return time.Time{}, false
}

var (
	withSeconds  = regexp.MustCompile(`\d:\d\d:\d\d`)
	withFraction = regexp.MustCompile(`:\d\d\.\d`)
)

// wholeOf is the end of the second or millisecond that text gives.
func wholeOf(text string, at time.Time) time.Time {
	switch {
	case withFraction.MatchString(text):
		return at.Truncate(time.Millisecond).Add(time.Millisecond - time.Microsecond)
	case withSeconds.MatchString(text):
		return at.Truncate(time.Second).Add(time.Second - time.Microsecond)
	}
	return at
}

var (
	agoPart = regexp.MustCompile(`^\s*(\d+(?:\.\d+)?|an?)\s*([a-z]+)\s*,?(?:\s*and\s)?`)
	agoUnit = map[string]time.Duration{
		"s": time.Second, "sec": time.Second, "second": time.Second,
		"m": time.Minute, "min": time.Minute, "minute": time.Minute,
		"h": time.Hour, "hr": time.Hour, "hour": time.Hour,
		"d": 24 * time.Hour, "day": 24 * time.Hour,
		"w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour,
	}
)

// maxAgo keeps sums of durations from running over.
const maxAgo = 100 * 365 * 24 * time.Hour

func parseAgo(text string) (time.Duration, bool) {
	rest := strings.TrimSpace(strings.TrimSuffix(strings.ToLower(text), "ago"))
	if rest == "now" {
		return 0, true
	}
	var total time.Duration
	for rest != "" {
		m := agoPart.FindStringSubmatch(rest)
		if m == nil {
			return 0, false
		}
		unit, ok := agoUnit[m[2]]
		if !ok {
			unit, ok = agoUnit[strings.TrimSuffix(m[2], "s")]
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if strings.HasPrefix(m[1], "a") {
			n, err = 1, nil
		}
		if !ok || err != nil || n*float64(unit) > float64(maxAgo) {
			return 0, false
		}
		total += time.Duration(n * float64(unit))
		if total > maxAgo {
			return 0, false
		}
		rest = rest[len(m[0]):]
	}
	return total, total > 0
}

// timeOf reads a timestamp of the API, which differ in precision and zone form.
// Absent or unreadable ones are nil.
func timeOf(text *string) *time.Time {
	if text == nil {
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, *text)
	if err != nil {
		return nil
	}
	at = at.UTC()
	return &at
}

var isoDuration = regexp.MustCompile(`^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$`)

// parseISODuration reads P1DT2H3M4.5S and the like; years and months have no
// fixed length and are not used by the service.
func parseISODuration(text string) (time.Duration, bool) {
	m := isoDuration.FindStringSubmatch(text)
	if m == nil || text == "P" {
		return 0, false
	}
	var total float64
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.ParseFloat(m[i+1], 64)
		if err != nil {
			return 0, false
		}
		total += n * float64(unit)
	}
	if total > float64(maxAgo) {
		return 0, false
	}
	return time.Duration(total), true
}
