package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
	"lifeboat/internal/iam"
	"lifeboat/internal/server"
)

// clientFlags are what every verb of the human's client takes. The result goes
// to stdout; progress, questions and errors to stderr.
type clientFlags struct {
	Data string `placeholder:"DIR" type:"path" help:"Reach the server whose data directory this is, on its own host. Without it, the AWS_… variables are used that lifeboat env prints."`
	JSON bool   `name:"json" help:"Print the result as one JSON document."`
}

// connect finds the server.
func (f *clientFlags) connect(ctx context.Context) (*client.Client, error) {
	if f.Data == "" {
		return client.FromEnvironment(ctx)
	}
	d, err := server.ReadDataDir(f.Data)
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(iam.AuthorityCertFile(f.Data))
	if err != nil {
		return nil, fmt.Errorf("read the server's certificate authority: %w", err)
	}
	return client.New(client.Access{
		Endpoint: "https://" + reachable(d.Settings.Listen), Authority: authority, Region: d.Settings.Region,
		KeyID: d.AdminKey.ID, Secret: d.AdminKey.Secret.Reveal(),
	})
}

// result prints the outcome: as JSON, or as text makes it.
func (f *clientFlags) result(v any, text func(*show.Printer)) error {
	return printResult(f.JSON, v, text)
}

// say prints what is not the result.
func say(text func(*show.Printer)) error { return print(os.Stderr, text) }

func print(w io.Writer, text func(*show.Printer)) error {
	out := bufio.NewWriter(w)
	p := &show.Printer{W: out, Now: time.Now()}
	text(p)
	if err := errors.Join(p.Err(), out.Flush()); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}

// live shows progress on stderr.
func live() *show.Live {
	return &show.Live{W: os.Stderr, Terminal: isTerminal(os.Stderr), Now: time.Now}
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// confirmFlags belong to verbs that remove something.
type confirmFlags struct {
	DryRun bool `help:"Print what would be done, and do nothing."`
	Yes    bool `short:"y" help:"Do not ask. Nothing is ever asked when stdin is no terminal."`
}

// confirm asks whether to go on, if there is somebody to ask.
func (f *confirmFlags) confirm(ctx context.Context) error {
	if f.Yes || !isTerminal(os.Stdin) {
		return nil
	}
	fmt.Fprint(os.Stderr, "\nGo on? [y/N] ")
	answer := make(chan string, 1)
	// Nothing ends a read of a terminal: when the person interrupts instead, this
	// goroutine ends with the program.
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n') // what was not read is no yes
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		if line == "y" || line == "yes" {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr)
	}
	return errors.New("nothing was done")
}

// follow watches a job to its end, prints what became of it, and fails when one
// of its servers did. The job itself outlives this program.
func (f *clientFlags) follow(ctx context.Context, c *client.Client, id string) error {
	watcher := live()
	fmt.Fprintln(os.Stderr)
	job, err := c.Follow(ctx, id, watcher)
	watcher.End()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted; the job goes on, and `lifeboat job %s` follows it again", id)
	}
	if err != nil {
		return fmt.Errorf("the job goes on, and `lifeboat job %s` follows it again: %w", id, err)
	}
	fmt.Fprintln(os.Stderr)
	return f.ended(job, func(p *show.Printer) { p.Result(job) })
}

// ended prints a job and turns failed servers into the exit code.
func (f *clientFlags) ended(job client.Job, text func(*show.Printer)) error {
	if err := f.result(jobDocument{Job: job}, text); err != nil {
		return err
	}
	if n := job.Failed(); n > 0 {
		return fmt.Errorf("%d of %d failed in job %s", n, len(job.Servers), job.ID)
	}
	return nil
}

// jobDocument is what verbs about one job print as JSON.
type jobDocument struct {
	Job client.Job `json:"job"`
}
