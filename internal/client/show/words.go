package show

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Duration shows a span in at most two units; one that is negative, as clocks
// that differ make it, is shown as none.
func Duration(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < day:
		return twoUnits(int64(d/time.Hour), "h", int64(d%time.Hour/time.Minute), "min")
	}
	return twoUnits(int64(d/day), "d", int64(d%day/time.Hour), "h")
}

// short is Duration with tenths where they tell something.
func short(d time.Duration) string {
	if d >= 0 && d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return Duration(d)
}

func twoUnits(a int64, unit string, b int64, smaller string) string {
	if b == 0 {
		return fmt.Sprintf("%d %s", a, unit)
	}
	return fmt.Sprintf("%d %s %d %s", a, unit, b, smaller)
}

// Bytes shows a size in binary units.
func Bytes(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// lower turns a constant of the API into words: IN_PROGRESS is "in progress".
func lower(constant string) string {
	return strings.ToLower(strings.NewReplacer("_", " ", "-", " ").Replace(constant))
}

// sentence ends text with exactly one full stop.
func sentence(text string) string { return strings.TrimRight(text, ". \n") + "." }
