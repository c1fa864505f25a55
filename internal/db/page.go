package db

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/uptrace/bun"
)

// Page asks for at most Limit rows after a cursor; the empty cursor is the
// start. Cursors stay valid while rows come and go.
type Page struct {
	After string
	Limit int
}

// cursor is the place of one row in an order by (number, id).
type cursor struct {
	number int64
	id     string
}

func (c cursor) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(c.number, 36) + "/" + c.id))
}

func parseCursor(s string) (cursor, error) {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return cursor{}, fmt.Errorf("cursor %q: %w", s, err)
	}
	digits, id, _ := strings.Cut(string(raw), "/")
	number, err := strconv.ParseInt(digits, 36, 64)
	if err != nil {
		return cursor{}, fmt.Errorf("cursor %q: %w", s, err)
	}
	return cursor{number, id}, nil
}

// by orders a query by two columns and takes one page and a row more of it, the
// sign of a next page.
func (p Page) by(q *bun.SelectQuery, number, id string, descending bool) (*bun.SelectQuery, error) {
	compare, order := ">", "ASC"
	if descending {
		compare, order = "<", "DESC"
	}
	if p.After != "" {
		at, err := parseCursor(p.After)
		if err != nil {
			return nil, err
		}
		q = q.Where("(?, ?) ? (?, ?)", bun.Ident(number), bun.Ident(id), bun.Safe(compare), at.number, at.id)
	}
	q = q.OrderExpr("? ?, ? ?", bun.Ident(number), bun.Safe(order), bun.Ident(id), bun.Safe(order))
	return q.Limit(int64(p.Limit) + 1), nil
}

// cut takes the extra row off and returns the cursor of the last one kept.
func cut[R any](p Page, rows []R, place func(R) cursor) ([]R, string) {
	if len(rows) <= p.Limit {
		return rows, ""
	}
	rows = rows[:p.Limit]
	return rows, place(rows[len(rows)-1]).String()
}

// convert maps rows to resources, never to nil.
func convert[R, T any](rows []R, f func(R) T) []T {
	out := make([]T, 0, len(rows))
	for _, r := range rows {
		out = append(out, f(r))
	}
	return out
}
