package db

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"
)

// stamp is a time as microseconds since 1970; the zero time is 0.
type stamp int64

func stampOf(t time.Time) stamp {
	if t.IsZero() {
		return 0
	}
	return stamp(t.UnixMicro())
}

func (s stamp) Time() time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(s)).UTC()
}

// document is a value kept as JSON text.
type document[T any] struct{ V T }

func (d document[T]) Value() (driver.Value, error) {
	text, err := json.Marshal(d.V)
	return string(text), err
}

func (d *document[T]) Scan(src any) error {
	switch text := src.(type) {
	case string:
		if text == "null" { // most of those that may be absent
			return nil
		}
		return json.Unmarshal([]byte(text), &d.V)
	case []byte:
		return json.Unmarshal(text, &d.V)
	}
	return fmt.Errorf("a JSON column holds a %T", src)
}
