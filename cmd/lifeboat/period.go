package main

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// period is a flag: a span of time, also in days and weeks.
type period time.Duration

// UnmarshalText implements the flag.
func (p *period) UnmarshalText(text []byte) error {
	if d, err := time.ParseDuration(string(text)); err == nil {
		*p = period(d)
		return nil
	}
	units := map[byte]time.Duration{'d': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if n := len(text); n > 1 && units[text[n-1]] > 0 {
		count, err := strconv.ParseFloat(string(text[:n-1]), 64)
		if span := count * float64(units[text[n-1]]); err == nil && math.Abs(span) < math.MaxInt64/2 {
			*p = period(span)
			return nil
		}
	}
	return fmt.Errorf("%q is no span of time: want one such as 90m, 12h, 3d or 2w", text)
}

// duration is nil where the flag was not given.
func (p *period) duration() *time.Duration { return (*time.Duration)(p) }
