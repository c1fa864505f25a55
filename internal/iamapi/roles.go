package iamapi

import (
	"strconv"
	"time"

	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
)

type roleShape struct {
	Path               string
	RoleName           string
	RoleID             string `xml:"RoleId"`
	ARN                string `xml:"Arn"`
	CreateDate         string
	TrustPolicy        string `xml:"AssumeRolePolicyDocument"` // URL-encoded
	Description        string `xml:",omitempty"`
	MaxSessionDuration int
}

func (q *request) roleShape(r directory.Role) roleShape {
	return roleShape{
		"/", r.Name, r.ID, iam.RoleARN(q.account, r.Name), stampOf(r.Created),
		escaped(r.Trust), r.Description, int(r.MaxSession.Seconds()),
	}
}

func onRole(q *request) string { return iam.RoleARN(q.account, q.form.Get("RoleName")) }

type roleResult struct{ Role roleShape }

func createRole(q *request) (any, error) {
	name, err := q.need("RoleName")
	if err != nil {
		return nil, err
	}
	trust, err := q.need("AssumeRolePolicyDocument")
	if err != nil {
		return nil, err
	}
	longest, err := q.longest()
	if err != nil {
		return nil, err
	}
	r, err := q.Directory.CreateRole(q.ctx(), q.account, q.form.Get("Path"), directory.Role{
		Name: name, Trust: trust, Description: q.form.Get("Description"), MaxSession: longest,
	})
	return roleResult{q.roleShape(r)}, err
}

// longest is how long sessions of a role may be; 0: the request does not say.
func (q *request) longest() (time.Duration, error) {
	text := q.form.Get("MaxSessionDuration")
	if text == "" {
		return 0, nil
	}
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds <= 0 || seconds > int(directory.LongestSession.Seconds()) {
		return 0, &directory.Error{Code: directory.CodeInvalid, Message: "MaxSessionDuration must be 3600 to 43200 seconds."}
	}
	return time.Duration(seconds) * time.Second, nil
}

func updateRole(q *request) (any, error) {
	longest, err := q.longest()
	if err != nil {
		return nil, err
	}
	var description *string
	if q.form.Has("Description") {
		text := q.form.Get("Description")
		description = &text
	}
	return struct{}{}, q.Directory.UpdateRole(q.ctx(), q.account, q.form.Get("RoleName"), description, longest)
}

// listInstanceProfiles: there are none here, and tools ask before they delete a role.
func listInstanceProfiles(q *request) (any, error) {
	_, err := q.Directory.Role(q.ctx(), q.account, q.form.Get("RoleName"))
	return struct {
		Profiles []string `xml:"InstanceProfiles>member"`
		Page
	}{}, err
}

func getRole(q *request) (any, error) {
	r, err := q.Directory.Role(q.ctx(), q.account, q.form.Get("RoleName"))
	return roleResult{q.roleShape(r)}, err
}

func listRoles(q *request) (any, error) {
	all, err := q.Directory.Roles(q.ctx(), q.account)
	if err != nil {
		return nil, err
	}
	roles, page, err := paged(q, all, func(r directory.Role) string { return r.Name })
	out := struct {
		Roles []roleShape `xml:"Roles>member"`
		Page
	}{Page: page}
	for _, r := range roles {
		out.Roles = append(out.Roles, q.roleShape(r))
	}
	return out, err
}

func updateTrust(q *request) (any, error) {
	trust, err := q.need("PolicyDocument")
	if err != nil {
		return nil, err
	}
	return nil, q.Directory.SetTrust(q.ctx(), q.account, q.form.Get("RoleName"), trust)
}

func deleteRole(q *request) (any, error) {
	return nil, q.Directory.DeleteRole(q.ctx(), q.account, q.form.Get("RoleName"))
}
