package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

var errTruncated = errors.New("option data ends too early")

// parseInfo decodes the data of INFO and GO: the export's name and what the
// client wants to be told.
func parseInfo(data []byte) (name string, wants []infoType, err error) {
	name, data, err = cutString(data)
	if err != nil {
		return "", nil, err
	}
	if len(data) < 2 {
		return "", nil, errTruncated
	}
	n := int(binary.BigEndian.Uint16(data))
	data = data[2:]
	if len(data) != 2*n {
		return "", nil, fmt.Errorf("%d information requests need %d bytes, not %d", n, 2*n, len(data))
	}
	wants = make([]infoType, 0, n)
	for ; len(data) > 0; data = data[2:] {
		wants = append(wants, infoType(binary.BigEndian.Uint16(data)))
	}
	return name, dedupe(wants), nil
}

// dedupe keeps each known request once: the answer to a long list of the same
// question would be many times as long as the list.
func dedupe(wants []infoType) []infoType {
	var seen [infoBlockSize + 1]bool
	kept := wants[:0]
	for _, w := range wants {
		if w <= infoBlockSize && !seen[w] {
			seen[w] = true
			kept = append(kept, w)
		}
	}
	return kept
}

// parseMetaContext decodes the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func parseMetaContext(data []byte) (name string, queries []string, err error) {
	name, data, err = cutString(data)
	if err != nil {
		return "", nil, err
	}
	if len(data) < 4 {
		return "", nil, errTruncated
	}
	n := binary.BigEndian.Uint32(data)
	data = data[4:]
	if uint64(n)*4 > uint64(len(data)) {
		return "", nil, errTruncated
	}
	queries = make([]string, 0, n)
	for range n {
		var q string
		if q, data, err = cutString(data); err != nil {
			return "", nil, err
		}
		queries = append(queries, q)
	}
	if len(data) != 0 {
		return "", nil, fmt.Errorf("%d bytes too many after the last query", len(data))
	}
	return name, queries, nil
}

// cutString takes a 32-bit length and that many bytes of text off data.
func cutString(data []byte) (string, []byte, error) {
	if len(data) < 4 {
		return "", nil, errTruncated
	}
	n := binary.BigEndian.Uint32(data)
	data = data[4:]
	if uint64(n) > uint64(len(data)) {
		return "", nil, errTruncated
	}
	s := string(data[:n])
	if err := checkName(s); err != nil {
		return "", nil, err
	}
	return s, data[n:], nil
}

func checkName(s string) error {
	if len(s) > maxName {
		return fmt.Errorf("a name of %d bytes is longer than %d", len(s), maxName)
	}
	if !utf8.ValidString(s) {
		return errors.New("a name is not valid UTF-8")
	}
	return nil
}
