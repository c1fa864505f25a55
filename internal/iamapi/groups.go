package iamapi

import (
	"lifeboat/internal/iam/directory"
)

type groupShape struct {
	Path       string
	GroupName  string
	GroupID    string `xml:"GroupId"`
	ARN        string `xml:"Arn"`
	CreateDate string
}

func (q *request) groupARN(name string) string {
	return "arn:aws:iam::" + q.account + ":group/" + name
}

func (q *request) groupShape(g directory.Group) groupShape {
	return groupShape{"/", g.Name, g.ID, q.groupARN(g.Name), stampOf(g.Created)}
}

func onGroup(q *request) string { return q.groupARN(q.form.Get("GroupName")) }

func createGroup(q *request) (any, error) {
	name, err := q.need("GroupName")
	if err != nil {
		return nil, err
	}
	g, err := q.Directory.CreateGroup(q.ctx(), q.account, name, q.form.Get("Path"))
	return struct{ Group groupShape }{q.groupShape(g)}, err
}

// getGroup tells of a group, and of its users page by page.
func getGroup(q *request) (any, error) {
	g, err := q.Directory.Group(q.ctx(), q.account, q.form.Get("GroupName"))
	if err != nil {
		return nil, err
	}
	members, page, err := paged(q, g.Members, func(name string) string { return name })
	out := struct {
		Group groupShape
		Users []userShape `xml:"Users>member"`
		Page
	}{Group: q.groupShape(g), Page: page}
	for _, name := range members {
		u, err := q.Directory.User(q.ctx(), q.account, name)
		if err != nil {
			return nil, err
		}
		out.Users = append(out.Users, q.userShape(u))
	}
	return out, err
}

func listGroups(q *request) (any, error) { return q.groups("") }

func listGroupsForUser(q *request) (any, error) {
	name, err := q.need("UserName")
	if err != nil {
		return nil, err
	}
	return q.groups(name)
}

func (q *request) groups(user string) (any, error) {
	all, err := q.Directory.Groups(q.ctx(), q.account, user)
	if err != nil {
		return nil, err
	}
	groups, page, err := paged(q, all, func(g directory.Group) string { return g.Name })
	out := struct {
		Groups []groupShape `xml:"Groups>member"`
		Page
	}{Page: page}
	for _, g := range groups {
		out.Groups = append(out.Groups, q.groupShape(g))
	}
	return out, err
}

func deleteGroup(q *request) (any, error) {
	return nil, q.Directory.DeleteGroup(q.ctx(), q.account, q.form.Get("GroupName"))
}

func changeMember(in bool) func(*request) (any, error) {
	return func(q *request) (any, error) {
		user, err := q.need("UserName")
		if err != nil {
			return nil, err
		}
		return nil, q.Directory.SetMember(q.ctx(), q.account, q.form.Get("GroupName"), user, in)
	}
}
