package vault

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// Share is a part of all objects: those whose name hashes to it. The shares 1/30,
// 2/30 … 30/30 together are everything, each object in one of them, always the same.
type Share struct{ Part, Of int }

// Everything is the share that all objects belong to.
var Everything = Share{1, 1}

// ParseShare reads a share such as "1/30".
func ParseShare(s string) (Share, error) {
	part, of, ok := strings.Cut(s, "/")
	p, err1 := strconv.Atoi(part)
	n, err2 := strconv.Atoi(of)
	if !ok || err1 != nil || err2 != nil || p < 1 || n < p || n > 1<<20 {
		return Share{}, fmt.Errorf("share %q: want PART/OF, such as 1/30 for the first of thirty", s)
	}
	return Share{p, n}, nil
}

func (s Share) String() string { return fmt.Sprintf("%d/%d", s.Part, s.Of) }

// MarshalText and UnmarshalText make it a flag and a member of JSON.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseShare.
func (s *Share) UnmarshalText(text []byte) (err error) {
	*s, err = ParseShare(string(text))
	return err
}

// holds tells whether an object of that name belongs to the share. The zero share
// holds everything.
func (s Share) holds(name string) bool {
	if s.Of <= 1 {
		return true
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	x := h.Sum64() // its low bits alone are poor
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return int(x%uint64(s.Of)) == s.Part-1
}
