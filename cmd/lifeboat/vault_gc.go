package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
	"lifeboat/internal/server"
)

type vaultGCCommand struct {
	Data    string  `required:"" placeholder:"DIR" type:"path" help:"The server's data directory. The work is done by its server when that runs."`
	Server  string  `arg:"" optional:"" help:"Hostname, ID, or first part of an ID; all servers without it."`
	Journal *period `placeholder:"TIME" help:"Keep every point for so long, 0 to 90d, this once, in place of what the server was told: shorter drops points that it would keep. By default what the data directory says; refused while the server runs."`
	JSON    bool    `name:"json" help:"Print the result as one JSON document."`
}

// tidied is what the verb prints of a server as JSON.
type tidied struct {
	Hostname string `json:"hostname"`
	client.Tidied
	Err string `json:"error,omitempty"`
}

// Run deletes what nothing needs any more.
func (v *vaultGCCommand) Run(ctx context.Context) error {
	began := time.Now()
	list, err := v.tidy(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted: what was deleted was garbage, and the rest goes the next time")
	}
	if err != nil {
		return err
	}
	var failed error
	for _, t := range list {
		if t.Err != "" {
			failed = errors.New("not all servers could be tidied: `lifeboat vault verify` tells what is damaged")
		}
	}
	printed := printResult(v.JSON, struct {
		Servers []tidied `json:"servers"`
	}{list}, func(p *show.Printer) {
		var rows [][]string
		var bytes int64
		for _, t := range list {
			bytes += t.Bytes
			rows = append(rows, []string{t.Hostname, fmt.Sprint(t.Dropped), fmt.Sprint(t.Objects), show.Bytes(t.Bytes), fmt.Sprint(t.Unfinished), t.Server})
		}
		p.Printf("Freed %s in %s.\n", show.Bytes(bytes), show.Duration(time.Since(began)))
		p.Table([]string{"HOSTNAME", "POINTS DROPPED", "OBJECTS DELETED", "FREED", "UNFINISHED", "ID"}, rows)
		for _, t := range list {
			if t.Err != "" {
				p.Printf("%s: %s\n", show.Clean(t.Hostname), show.Clean(t.Err))
			}
		}
	})
	return errors.Join(printed, failed)
}

func (v *vaultGCCommand) tidy(ctx context.Context) ([]tidied, error) {
	if server.Running(v.Data) {
		if v.Journal != nil {
			return nil, usageError{errors.New("--journal: the server runs, and it goes by its own journal window: leave the flag out, or start the server with another --journal")}
		}
		return v.online(ctx)
	}
	return v.offline(ctx)
}

// online has the server do it, which knows what its readers need.
func (v *vaultGCCommand) online(ctx context.Context) ([]tidied, error) {
	flags := clientFlags{Data: v.Data}
	c, err := flags.connect(ctx)
	if err != nil {
		return nil, err
	}
	servers, err := c.Servers(ctx)
	if err == nil && v.Server != "" {
		servers, err = c.FindServers(ctx, []string{v.Server})
	}
	if err != nil {
		return nil, err
	}
	out := []tidied{}
	for _, s := range servers {
		t, err := c.Tidy(ctx, s.ID)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		t.Server = s.ID
		out = append(out, tidied{s.Name(), t, message(err)})
	}
	return out, nil
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (v *vaultGCCommand) offline(ctx context.Context) (out []tidied, err error) {
	only := ""
	if v.Server != "" {
		if only, err = v.id(ctx); err != nil {
			return nil, err
		}
	}
	u, err := server.OpenUpkeep(ctx, v.Data, v.Journal.duration())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	if err := u.MayTidy(); err != nil {
		return nil, err
	}
	if window, kept := u.Journal(); kept != nil && window != *kept {
		fmt.Fprintf(os.Stderr, "Going by a journal window of %s, as --journal says, in place of the %s that the server keeps.\n", window, *kept)
	}
	servers, err := u.Servers(ctx)
	if err != nil {
		return nil, err
	}
	out = []tidied{}
	for _, s := range servers {
		if only != "" && string(s.ID) != only {
			continue
		}
		t, err := u.Tidy(ctx, s)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		out = append(out, tidied{client.Printable(s.Properties.Hostname), tidiedOf(t), message(err)})
	}
	return out, nil
}

// id finds the server in the vault itself.
func (v *vaultGCCommand) id(ctx context.Context) (id string, err error) {
	flags := vaultFlags{Data: v.Data}
	open, err := flags.look(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	known, err := open.Server(ctx, v.Server)
	return string(known.ID), err
}

func tidiedOf(t server.Tidied) client.Tidied {
	return client.Tidied{Server: string(t.Server), Dropped: t.Dropped, Objects: t.Objects, Bytes: t.Bytes, Unfinished: t.Unfinished, Unknown: t.Unknown}
}
