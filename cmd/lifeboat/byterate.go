package main

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
)

// byteRate is a flag: bytes per second.
type byteRate int64

// UnmarshalText implements the flag.
func (r *byteRate) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n == 0 || n > math.MaxInt64 {
		return fmt.Errorf("%q is no rate: want bytes per second, such as 50MiB", text)
	}
	*r = byteRate(n)
	return nil
}
