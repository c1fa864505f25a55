package drsapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lifeboat/internal/db"
)

// written is the JSON of a T. To encode the same rows for each request is most of
// what a listing costs.
type written[T any] []byte

// Schema is that of a T.
func (written[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}

// MarshalJSON implements json.Marshaler.
func (w written[T]) MarshalJSON() ([]byte, error) { return w, nil }

// asOf is how old a text may be that tells how long ago something was.
const asOf = time.Second

// write returns what clients see of a listed row. It is encoded once in a version
// of the row, and again when it is older than good; 0 means never.
func write[R, T any](l *db.Listed[R], now time.Time, good time.Duration, shape func(R) T) (written[T], error) {
	if known := l.Written(); known != nil {
		if age := now.Sub(known.At); good == 0 || 0 <= age && age < good {
			return known.Text, nil
		}
	}
	text, err := json.Marshal(shape(l.V))
	if err != nil {
		return nil, fmt.Errorf("write listed row: %w", err)
	}
	l.Keep(&db.Written{Text: text, At: now})
	return text, nil
}

// writeAll is write for a page.
func writeAll[R, T any](page []*db.Listed[R], now time.Time, good time.Duration, shape func(R) T) ([]written[T], error) {
	out := make([]written[T], len(page))
	for i, l := range page {
		var err error
		if out[i], err = write(l, now, good, shape); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// inPieces is an output that need not be put together before it is sent.
type inPieces interface{ pieces() [][]byte }

// piecesOf are those of a page: what json.Marshal would write of it.
func piecesOf[T any](items []written[T], next paginationToken) [][]byte {
	out := make([][]byte, 0, 2*len(items)+2)
	start := []byte(`{"items":[`)
	for _, item := range items {
		out = append(out, start, item)
		start = comma
	}
	if len(items) == 0 {
		out = append(out, start)
	}
	end := []byte(`]`)
	if next != "" { // in base64, which needs no escapes
		end = append(end, `,"nextToken":`...)
		end = strconv.AppendQuote(end, string(next))
	}
	return append(out, append(end, '}'))
}

var comma = []byte(`,`)
