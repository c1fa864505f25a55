package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type iamCommand struct {
	Account   accountCommand   `cmd:"" help:"Accounts, which share nothing: make and list them."`
	User      userCommand      `cmd:"" help:"Users of the account: make, list and delete them."`
	AccessKey accessKeyCommand `cmd:"" help:"Access keys of a user: make, list, switch off and delete them."`
	Policy    policyCommand    `cmd:"" help:"Policies, which say who may do what: keep, show, attach and detach them."`
	Role      roleCommand      `cmd:"" help:"Roles, which users and other accounts assume for a while: make, list and delete them."`
	Token     tokenCommand     `cmd:"" help:"Print an install token of the account, for its agents."`
}

type accountCommand struct {
	Create accountCreate `cmd:"" help:"Make an account; prints the access key of its root, this once."`
	List   accountList   `cmd:"" help:"List the server's accounts."`
	Key    accountKey    `cmd:"" help:"Make another access key of an account's root, when the first is lost."`
}

type accountCreate struct {
	clientFlags
	Name   string `arg:"" help:"What people call it."`
	Number string `placeholder:"NUMBER" help:"Its 12 digits; made up by default."`
}

// Run makes an account.
func (v *accountCreate) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	account, key, err := c.CreateAccount(ctx, v.Number, v.Name)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"account": account, "accessKey": key}, func(p *show.Printer) {
		p.Printf("Account %s (%s). The access key of its root, told this once:\n\n", account.ID, account.Name)
		printKey(p, key.ID, key.Secret)
	})
}

func printKey(p *show.Printer, id, secret string) {
	p.Printf("export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\n", quote(id), quote(secret))
}

type accountList struct{ clientFlags }

// Run lists accounts.
func (v *accountList) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	accounts, err := c.Accounts(ctx)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"accounts": accounts}, func(p *show.Printer) {
		var rows [][]string
		for _, a := range accounts {
			rows = append(rows, []string{a.ID, a.Name})
		}
		p.Table([]string{"ACCOUNT", "NAME"}, rows)
	})
}

type accountKey struct {
	clientFlags
	Number string `arg:"" help:"The account's 12 digits."`
}

// Run makes a key of an account's root.
func (v *accountKey) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	key, err := c.CreateRootKey(ctx, v.Number)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"accessKey": key}, func(p *show.Printer) { printKey(p, key.ID, key.Secret) })
}

type userCommand struct {
	Create userCreate `cmd:"" help:"Make a user, who may do nothing before a policy is attached."`
	List   userList   `cmd:"" help:"List the account's users and their policies."`
	Delete userDelete `cmd:"" help:"Delete a user that has neither access keys nor policies."`
}

type userCreate struct {
	clientFlags
	Name string `arg:"" help:"The user's name."`
}

// Run makes a user.
func (v *userCreate) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	user, err := c.CreateUser(ctx, v.Name)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"user": user}, func(p *show.Printer) {
		p.Printf("User %s. Next: `lifeboat iam policy attach POLICY --user %s` and `lifeboat iam access-key create %s`.\n", user.ARN, v.Name, v.Name)
	})
}

type userList struct{ clientFlags }

// Run lists users.
func (v *userList) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	users, err := c.Users(ctx)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"users": users}, func(p *show.Printer) {
		var rows [][]string
		for _, u := range users {
			rows = append(rows, []string{u.Name, strings.Join(u.Policies, " "), p.Moment(u.Created)})
		}
		p.Table([]string{"USER", "POLICIES", "CREATED"}, rows)
	})
}

type userDelete struct {
	clientFlags
	Name string `arg:"" help:"The user's name."`
}

// Run deletes a user.
func (v *userDelete) Run(ctx context.Context) error {
	return v.change(ctx, func(c *client.Client) error { return c.DeleteUser(ctx, v.Name) }, "User %s is deleted.\n", v.Name)
}

// change does what has no result but that it was done.
func (f *clientFlags) change(ctx context.Context, do func(*client.Client) error, format string, args ...any) error {
	c, err := f.connect(ctx)
	if err != nil {
		return err
	}
	if err := do(c); err != nil {
		return err
	}
	return f.result(map[string]any{"done": true}, func(p *show.Printer) { p.Printf(format, args...) })
}

type tokenCommand struct{ clientFlags }

// Run makes an install token.
func (v *tokenCommand) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	token, err := c.InstallToken(ctx)
	if err != nil {
		return err
	}
	return v.result(token, func(p *show.Printer) { p.Printf("export LIFEBOAT_TOKEN=%s\n", quote(token.Token)) })
}

type roleCommand struct {
	Create roleCreate `cmd:"" help:"Make a role, which may do nothing before a policy is attached."`
	List   roleList   `cmd:"" help:"List the account's roles and their policies."`
	Delete roleDelete `cmd:"" help:"Delete a role without policies; its sessions end with it."`
}

type roleCreate struct {
	clientFlags
	Name         string `arg:"" help:"The role's name."`
	Trust        string `placeholder:"FILE" help:"Trust policy, a JSON file; - reads stdin."`
	TrustAccount string `placeholder:"NUMBER" help:"Trust those of an account whom its own policies let assume the role, instead of --trust."`
}

// Validate implements kong's check of the command line.
func (v *roleCreate) Validate() error {
	if (v.Trust == "") == (v.TrustAccount == "") {
		return errors.New("give one of --trust FILE and --trust-account NUMBER")
	}
	return nil
}

// Run makes a role.
func (v *roleCreate) Run(ctx context.Context) error {
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + v.TrustAccount + `"},"Action":"sts:AssumeRole"}]}`
	if v.Trust != "" {
		var err error
		if trust, err = document(v.Trust); err != nil {
			return err
		}
	}
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	role, err := c.CreateRole(ctx, v.Name, trust)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"role": role}, func(p *show.Printer) {
		p.Printf("Role %s. Next: `lifeboat iam policy attach POLICY --role %s`.\n", role.ARN, v.Name)
	})
}

// document reads a JSON file that the server will judge.
func document(path string) (string, error) {
	if path == "-" {
		text, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
		return string(text), err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", usageError{fmt.Errorf("read the policy: %w", err)}
	}
	return string(text), nil
}

type roleList struct{ clientFlags }

// Run lists roles.
func (v *roleList) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	roles, err := c.Roles(ctx)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"roles": roles}, func(p *show.Printer) {
		var rows [][]string
		for _, r := range roles {
			rows = append(rows, []string{r.Name, strings.Join(r.Policies, " "), r.ARN})
		}
		p.Table([]string{"ROLE", "POLICIES", "ARN"}, rows)
	})
}

type roleDelete struct {
	clientFlags
	Name string `arg:"" help:"The role's name."`
}

// Run deletes a role.
func (v *roleDelete) Run(ctx context.Context) error {
	return v.change(ctx, func(c *client.Client) error { return c.DeleteRole(ctx, v.Name) }, "Role %s is deleted.\n", v.Name)
}
