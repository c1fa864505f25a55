package iamapi

import (
	"net/http"
	"strconv"
)

// Page is what every paged result has (exported, or the encoder would not see it
// where it is embedded).
type Page struct {
	IsTruncated bool
	Marker      string `xml:",omitempty"`
}

const (
	defaultItems = 100
	mostItems    = 1000
)

// paged cuts one page out of a sorted list. The marker is the last name of the
// page before, so that it stays good while others come and go.
func paged[T any](q *request, list []T, name func(T) string) ([]T, Page, error) {
	items := defaultItems
	if text := q.form.Get("MaxItems"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostItems {
			return nil, Page{}, &refusal{status: http.StatusBadRequest, Code: "ValidationError", Message: "MaxItems must be 1 to 1000."}
		}
		items = n
	}
	marker := q.form.Get("Marker")
	var out []T
	for _, v := range list {
		if marker != "" && name(v) <= marker {
			continue
		}
		if len(out) == items {
			return out, Page{IsTruncated: true, Marker: name(out[len(out)-1])}, nil
		}
		out = append(out, v)
	}
	return out, Page{}, nil
}
