package iamapi

import (
	"maps"
	"slices"

	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
)

// holderParameters name whose policies a request is about.
var holderParameters = map[iam.Kind]string{iam.User: "UserName", iam.Role: "RoleName", directory.GroupKind: "GroupName"}

// holder is whose policies a request is about.
func (q *request) holder(kind iam.Kind) (directory.Holder, error) {
	name, err := q.need(holderParameters[kind])
	return directory.Holder{Kind: kind, Name: name}, err
}

func putInline(kind iam.Kind) func(*request) (any, error) {
	return func(q *request) (any, error) {
		h, err := q.holder(kind)
		if err != nil {
			return nil, err
		}
		name, err := q.need("PolicyName")
		if err != nil {
			return nil, err
		}
		text, err := q.need("PolicyDocument")
		if err != nil {
			return nil, err
		}
		return nil, q.Directory.PutInline(q.ctx(), q.account, h, name, text)
	}
}

type inlineShape struct {
	UserName       string `xml:",omitempty"`
	RoleName       string `xml:",omitempty"`
	GroupName      string `xml:",omitempty"`
	PolicyName     string
	PolicyDocument string // URL-encoded
}

func getInline(kind iam.Kind) func(*request) (any, error) {
	return func(q *request) (any, error) {
		h, err := q.holder(kind)
		if err != nil {
			return nil, err
		}
		out := inlineShape{PolicyName: q.form.Get("PolicyName")}
		text, err := q.Directory.Inline(q.ctx(), q.account, h, out.PolicyName)
		switch out.PolicyDocument = escaped(text); kind {
		case iam.User:
			out.UserName = h.Name
		case iam.Role:
			out.RoleName = h.Name
		default:
			out.GroupName = h.Name
		}
		return out, err
	}
}

func listInline(kind iam.Kind) func(*request) (any, error) {
	return func(q *request) (any, error) {
		h, err := q.holder(kind)
		if err != nil {
			return nil, err
		}
		g, err := q.Directory.Granted(q.ctx(), q.account, h)
		if err != nil {
			return nil, err
		}
		names, page, err := paged(q, slices.Sorted(maps.Keys(g.Inline)), func(name string) string { return name })
		return struct {
			Names []string `xml:"PolicyNames>member"`
			Page
		}{names, page}, err
	}
}

func deleteInline(kind iam.Kind) func(*request) (any, error) {
	return func(q *request) (any, error) {
		h, err := q.holder(kind)
		if err != nil {
			return nil, err
		}
		return nil, q.Directory.DeleteInline(q.ctx(), q.account, h, q.form.Get("PolicyName"))
	}
}
