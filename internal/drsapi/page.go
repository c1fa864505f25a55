package drsapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// Pages hold defaultPage items unless the client asks for another number, and
// never more than maxPage. The service documents no default.
const (
	defaultPage = 200
	maxPage     = 1000
)

// Paging are the members that every paged request has (exported, or the schema
// generator would not see them where they are embedded).
type Paging struct {
	MaxResults int32           `json:"maxResults,omitempty" minimum:"1" maximum:"2147483647"`
	NextToken  paginationToken `json:"nextToken,omitempty"`
}

// Paging1000 and Paging300 are for the listings of which the model allows
// only so many items on a page.
type (
	Paging1000 struct {
		MaxResults int32           `json:"maxResults,omitempty" minimum:"1" maximum:"1000"`
		NextToken  paginationToken `json:"nextToken,omitempty"`
	}
	Paging300 struct {
		MaxResults int32           `json:"maxResults,omitempty" minimum:"1" maximum:"300"`
		NextToken  paginationToken `json:"nextToken,omitempty"`
	}
)

const tokenMAC = sha256.Size

// page turns the paging of a request into a page of rows. listing names what is
// listed and by which filters: a token is good for the same listing of the same
// account only.
func (c caller) page(p Paging, listing ...any) (db.Page, error) {
	page := db.Page{Limit: defaultPage}
	if p.MaxResults > 0 {
		page.Limit = min(int(p.MaxResults), maxPage)
	}
	if p.NextToken == "" {
		return page, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(string(p.NextToken))
	if err != nil || len(raw) <= tokenMAC {
		return db.Page{}, badToken()
	}
	mac, cursor := raw[:tokenMAC], raw[tokenMAC:]
	want, err := c.tokenMAC(cursor, listing)
	if err != nil {
		return db.Page{}, err
	}
	if !hmac.Equal(mac, want) {
		return db.Page{}, badToken()
	}
	page.After = string(cursor)
	return page, nil
}

// nextToken seals the cursor of the next page; there is none after the last.
func (c caller) nextToken(cursor string, listing ...any) (paginationToken, error) {
	if cursor == "" {
		return "", nil
	}
	mac, err := c.tokenMAC([]byte(cursor), listing)
	if err != nil {
		return "", err
	}
	return paginationToken(base64.RawURLEncoding.EncodeToString(append(mac, cursor...))), nil
}

func (c caller) tokenMAC(cursor []byte, listing []any) ([]byte, error) {
	text, err := json.Marshal([]any{"page v1", c.account.ID, c.account.Region, listing, cursor})
	if err != nil {
		return nil, fmt.Errorf("seal pagination token: %w", err)
	}
	h := hmac.New(sha256.New, c.PageKey)
	h.Write(text)
	return h.Sum(nil), nil
}

func badToken() error {
	return invalidFields([]drs.FieldError{{
		Name:    "nextToken",
		Message: "Value at 'nextToken' failed to satisfy constraint: Member must be the nextToken of an earlier reply to the same request",
	}})
}

// list is listRows with what the API shows of the rows.
func list[R, T any](c caller, p Paging, listing []any,
	read func(db.Page) ([]R, string, error), shape func(R) T,
) ([]T, paginationToken, error) {
	rows, token, err := listRows(c, p, listing, read)
	if err != nil {
		return nil, "", err
	}
	return mapped(rows, shape), token, nil
}

// listRows runs one paged listing: it finds the page, reads it and seals the token
// of the next.
func listRows[R any](c caller, p Paging, listing []any, read func(db.Page) ([]R, string, error)) ([]R, paginationToken, error) {
	page, err := c.page(p, listing...)
	if err != nil {
		return nil, "", err
	}
	rows, cursor, err := read(page)
	if err != nil {
		return nil, "", err
	}
	token, err := c.nextToken(cursor, listing...)
	return rows, token, err
}

// mapped converts a list, never to nil: the API writes empty lists as [].
func mapped[R, T any](rows []R, shape func(R) T) []T {
	out := make([]T, 0, len(rows))
	for _, r := range rows {
		out = append(out, shape(r))
	}
	return out
}
