package main

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
)

// byteSize is a flag: a number of bytes.
type byteSize int64

// UnmarshalText implements the flag.
func (s *byteSize) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%q is no size: want bytes, such as 10GiB", text)
	}
	*s = byteSize(n)
	return nil
}

// orNone is the size, or, for zero, a negative one.
func (s byteSize) orNone() int64 {
	if s == 0 {
		return -1
	}
	return int64(s)
}
