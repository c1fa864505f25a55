package iamapi

import (
	"time"

	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
)

type userShape struct {
	Path       string
	UserName   string `xml:",omitempty"`
	UserID     string `xml:"UserId"`
	ARN        string `xml:"Arn"`
	CreateDate string
}

func (q *request) userARN(name string) string { return "arn:aws:iam::" + q.account + ":user/" + name }

func (q *request) userShape(u directory.User) userShape {
	return userShape{"/", u.Name, u.ID, q.userARN(u.Name), stampOf(u.Created)}
}

func onUser(q *request) string { return q.userARN(q.userName()) }

// userName is whom a request is about: without a name, the caller.
func (q *request) userName() string {
	if name := q.form.Get("UserName"); name != "" {
		return name
	}
	if q.Key.Kind == iam.User {
		return q.Key.Name
	}
	return ""
}

type userResult struct{ User userShape }

func createUser(q *request) (any, error) {
	name, err := q.need("UserName")
	if err != nil {
		return nil, err
	}
	u, err := q.Directory.CreateUser(q.ctx(), q.account, name, q.form.Get("Path"))
	return userResult{q.userShape(u)}, err
}

func getUser(q *request) (any, error) {
	name := q.userName()
	if name == "" && q.Key.Kind == iam.Root {
		return userResult{userShape{Path: "/", UserID: q.account, ARN: q.Key.ARN(), CreateDate: stampOf(time.Time{})}}, nil
	}
	u, err := q.Directory.User(q.ctx(), q.account, name)
	return userResult{q.userShape(u)}, err
}

func listUsers(q *request) (any, error) {
	all, err := q.Directory.Users(q.ctx(), q.account)
	if err != nil {
		return nil, err
	}
	users, page, err := paged(q, all, func(u directory.User) string { return u.Name })
	out := struct {
		Users []userShape `xml:"Users>member"`
		Page
	}{Page: page}
	for _, u := range users {
		out.Users = append(out.Users, q.userShape(u))
	}
	return out, err
}

func deleteUser(q *request) (any, error) {
	name, err := q.need("UserName")
	if err != nil {
		return nil, err
	}
	return nil, q.Directory.DeleteUser(q.ctx(), q.account, name)
}

type keyShape struct {
	UserName        string `xml:",omitempty"`
	AccessKeyID     string `xml:"AccessKeyId"`
	Status          string
	SecretAccessKey string `xml:",omitempty"`
	CreateDate      string
}

func status(active bool) string {
	if active {
		return "Active"
	}
	return "Inactive"
}

// keyOwner is whose access keys a request is about: without a name the caller's,
// so that those of root, who has none, are root's alone.
func (q *request) keyOwner() (user string, err error) {
	if user = q.userName(); user == "" && q.Key.Kind != iam.Root {
		return "", &directory.Error{Code: directory.CodeInvalid, Message: "Must specify userName when calling with non-User credentials"}
	}
	return user, nil
}

func createAccessKey(q *request) (any, error) {
	user, err := q.keyOwner()
	if err != nil {
		return nil, err
	}
	if user == "" {
		key, err := q.Directory.CreateRootKey(q.ctx(), q.account)
		return struct{ AccessKey keyShape }{keyShape{"", key.ID, status(true), key.Secret.Reveal(), stampOf(q.Now())}}, err
	}
	key, created, err := q.Directory.CreateKey(q.ctx(), q.account, user)
	return struct{ AccessKey keyShape }{keyShape{user, key.ID, status(true), key.Secret.Reveal(), stampOf(created)}}, err
}

func listAccessKeys(q *request) (any, error) {
	user, err := q.keyOwner()
	if err != nil {
		return nil, err
	}
	keys, err := q.Directory.Keys(q.ctx(), q.account, user)
	out := struct {
		UserName string     `xml:",omitempty"`
		Keys     []keyShape `xml:"AccessKeyMetadata>member"`
		Page
	}{UserName: user}
	for _, k := range keys {
		out.Keys = append(out.Keys, keyShape{UserName: k.User, AccessKeyID: k.ID, Status: status(k.Active), CreateDate: stampOf(k.Created)})
	}
	return out, err
}

func updateAccessKey(q *request) (any, error) {
	id, err := q.need("AccessKeyId")
	if err != nil {
		return nil, err
	}
	wanted := q.form.Get("Status")
	if wanted != status(true) && wanted != status(false) {
		return nil, &directory.Error{Code: directory.CodeInvalid, Message: "Status must be Active or Inactive."}
	}
	user, err := q.keyOwner()
	if err != nil {
		return nil, err
	}
	return nil, q.Directory.SetKeyActive(q.ctx(), q.account, user, id, wanted == status(true))
}

func deleteAccessKey(q *request) (any, error) {
	id, err := q.need("AccessKeyId")
	if err != nil {
		return nil, err
	}
	user, err := q.keyOwner()
	if err != nil {
		return nil, err
	}
	return nil, q.Directory.DeleteKey(q.ctx(), q.account, user, id)
}
