package guest

import "time"

// Load is what the helper's random writer of 4 KiB blocks found.
type Load struct {
	Writes   int
	Seconds  float64
	P50, P99 time.Duration // of a write
}

// Rate is writes per second.
func (l Load) Rate() float64 { return float64(l.Writes) / l.Seconds }
