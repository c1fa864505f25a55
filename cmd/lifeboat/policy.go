package main

import (
	"context"
	"errors"
	"strconv"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type accessKeyCommand struct {
	Create     keyCreate     `cmd:"" help:"Make an access key; its secret is printed this once."`
	List       keyList       `cmd:"" help:"List the access keys of a user."`
	Deactivate keyDeactivate `cmd:"" help:"Let an access key sign no more, until it is activated again."`
	Activate   keyActivate   `cmd:"" help:"Let an access key sign again."`
	Delete     keyDelete     `cmd:"" help:"Delete an access key for good."`
}

// keyFlags name one access key.
type keyFlags struct {
	clientFlags
	User string `arg:"" help:"The user's name."`
	ID   string `arg:"" help:"The access key's ID."`
}

type keyCreate struct {
	clientFlags
	User string `arg:"" help:"The user's name."`
}

// Run makes an access key.
func (v *keyCreate) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	key, err := c.CreateAccessKey(ctx, v.User)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"accessKey": key}, func(p *show.Printer) { printKey(p, key.ID, key.Secret) })
}

type keyList struct {
	clientFlags
	User string `arg:"" help:"The user's name."`
}

// Run lists access keys.
func (v *keyList) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	keys, err := c.AccessKeys(ctx, v.User)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"accessKeys": keys}, func(p *show.Printer) {
		var rows [][]string
		for _, k := range keys {
			state := "active"
			if !k.Active {
				state = "off"
			}
			rows = append(rows, []string{k.ID, state, p.Moment(k.Created)})
		}
		p.Table([]string{"ACCESS KEY", "STATE", "CREATED"}, rows)
	})
}

type keyDeactivate struct{ keyFlags }

// Run switches an access key off.
func (v *keyDeactivate) Run(ctx context.Context) error {
	return v.change(ctx, func(c *client.Client) error { return c.SetAccessKeyActive(ctx, v.User, v.ID, false) }, "Access key %s is off.\n", v.ID)
}

type keyActivate struct{ keyFlags }

// Run switches an access key on.
func (v *keyActivate) Run(ctx context.Context) error {
	return v.change(ctx, func(c *client.Client) error { return c.SetAccessKeyActive(ctx, v.User, v.ID, true) }, "Access key %s is active.\n", v.ID)
}

type keyDelete struct{ keyFlags }

// Run deletes an access key.
func (v *keyDelete) Run(ctx context.Context) error {
	return v.change(ctx, func(c *client.Client) error { return c.DeleteAccessKey(ctx, v.User, v.ID) }, "Access key %s is deleted.\n", v.ID)
}

type policyCommand struct {
	Put    policyPut    `cmd:"" help:"Keep a policy, or replace the one of this name."`
	List   policyList   `cmd:"" help:"List the account's policies, and those that are built in."`
	Show   policyShow   `cmd:"" help:"Print a policy's document."`
	Delete policyDelete `cmd:"" help:"Delete a policy that is attached to nobody."`
	Attach policyAttach `cmd:"" help:"Attach a policy to a user or role."`
	Detach policyDetach `cmd:"" help:"Detach a policy from a user or role."`
}

type policyPut struct {
	clientFlags
	Name string `arg:"" help:"The policy's name."`
	File string `arg:"" help:"Its document, a JSON file; - reads stdin."`
}

// Run keeps a policy.
func (v *policyPut) Run(ctx context.Context) error {
	text, err := document(v.File)
	if err != nil {
		return err
	}
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	policy, err := c.PutPolicy(ctx, v.Name, text)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"policy": policy}, func(p *show.Printer) { p.Printf("Policy %s is kept.\n", policy.ARN) })
}

type policyList struct{ clientFlags }

// Run lists policies.
func (v *policyList) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	policies, err := c.Policies(ctx)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"policies": policies}, func(p *show.Printer) {
		var rows [][]string
		for _, policy := range policies {
			attached := strconv.Itoa(policy.Attached)
			if policy.BuiltIn {
				attached = "built in"
			}
			rows = append(rows, []string{policy.Name, attached, policy.ARN})
		}
		p.Table([]string{"POLICY", "ATTACHED", "ARN"}, rows)
	})
}

type policyShow struct {
	clientFlags
	Name string `arg:"" help:"Name or ARN."`
}

// Run prints a policy.
func (v *policyShow) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	policy, err := c.Policy(ctx, v.Name)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"policy": policy}, func(p *show.Printer) { p.Printf("%s\n", policy.Document) })
}

type policyDelete struct {
	clientFlags
	Name string `arg:"" help:"Name or ARN."`
}

// Run deletes a policy.
func (v *policyDelete) Run(ctx context.Context) error {
	return v.change(ctx, func(c *client.Client) error { return c.DeletePolicy(ctx, v.Name) }, "Policy %s is deleted.\n", v.Name)
}

// attachFlags name a policy and whom it is to speak of.
type attachFlags struct {
	clientFlags
	Name string `arg:"" help:"Name or ARN of the policy."`
	User string `placeholder:"USER" help:"A user."`
	Role string `placeholder:"ROLE" help:"A role."`
}

// Validate implements kong's check of the command line.
func (v *attachFlags) Validate() error {
	if (v.User == "") == (v.Role == "") {
		return errors.New("give one of --user USER and --role ROLE")
	}
	return nil
}

func (v *attachFlags) whom() string {
	if v.User != "" {
		return "user " + v.User
	}
	return "role " + v.Role
}

type policyAttach struct{ attachFlags }

// Run attaches a policy.
func (v *policyAttach) Run(ctx context.Context) error {
	return v.change(ctx, func(c *client.Client) error { return c.AttachPolicy(ctx, v.Name, v.User, v.Role) }, "Policy %s is attached to %s.\n", v.Name, v.whom())
}

type policyDetach struct{ attachFlags }

// Run detaches a policy.
func (v *policyDetach) Run(ctx context.Context) error {
	return v.change(ctx, func(c *client.Client) error { return c.DetachPolicy(ctx, v.Name, v.User, v.Role) }, "Policy %s is detached from %s.\n", v.Name, v.whom())
}
