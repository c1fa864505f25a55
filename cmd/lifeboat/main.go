// Command lifeboat is all of Lifeboat in one binary: the server, the agent on a
// protected machine, and the verbs with which people use them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the build.
var version = "0.0.0-dev"

// cli lists the verbs; each has a file of its own.
type cli struct {
	Server serverCommand `cmd:"" group:"run" help:"Run the server: the DRS API, the vault, and the machines it recovers."`
	Agent  agentCommand  `cmd:"" group:"run" help:"Protect this machine: replicate its disks to a server."`
	Guard  guardCommand  `cmd:"" hidden:"" help:"Thaw what an agent froze and does not thaw; agents start it."`
	Env    envCommand    `cmd:"" group:"run" help:"Print the export lines with which AWS tools and the verbs below reach a server."`
	Demo   demoCommand   `cmd:"" group:"run" help:"Protect a small machine, kill it, recover it, and show what survived. Ends by itself."`

	Init      initCommand      `cmd:"" group:"client" help:"Initialize the account, once; all else is refused before."`
	Servers   serversCommand   `cmd:"" group:"client" help:"List the protected machines, and whether they can be recovered."`
	Points    pointsCommand    `cmd:"" group:"client" help:"List the moments that a machine can be recovered to."`
	Recover   recoverCommand   `cmd:"" group:"client" help:"Bring machines back, or try it with --drill."`
	Jobs      jobsCommand      `cmd:"" group:"client" help:"List drills, recoveries and terminations."`
	Job       jobCommand       `cmd:"" group:"client" help:"Show one job and its log, and follow it while it runs."`
	Instances instancesCommand `cmd:"" group:"client" help:"List the machines that were brought back."`
	Console   consoleCommand   `cmd:"" group:"client" help:"Print the serial console of a machine that was brought back."`
	Stop      stopCommand      `cmd:"" group:"client" help:"Power machines off that were brought back; their disks stay."`
	Start     startCommand     `cmd:"" group:"client" help:"Power them on again."`
	Terminate terminateCommand `cmd:"" group:"client" help:"Remove machines that were brought back, with what was written there."`
	Export    exportCommand    `cmd:"" group:"client" help:"Write a disk as it was at any point to a file, without booting it."`
	NBD       nbdCommand       `cmd:"" name:"nbd" group:"client" help:"Get access to a disk as it was at any point as a block device, to fetch single files."`

	IAM     iamCommand     `cmd:"" name:"iam" group:"access" help:"Say who may do what: accounts, users, access keys, policies, roles."`
	Audit   auditCommand   `cmd:"" group:"access" help:"Show who called what, from where, and what became of it."`
	Webhook webhookCommand `cmd:"" group:"access" help:"Send events to other systems: launches, stalls, new points."`

	Vault vaultCommand `cmd:"" group:"vault" help:"Look after the vault: list, measure, verify, rebuild, change its key."`

	Version kong.VersionFlag `short:"v" help:"Print the version and exit."`
}

// Exit codes, as help tells them.
const (
	exitFailed  = 1 // the work could not be done
	exitUsage   = 2 // the command line is wrong
	exitRefused = 3 // the server refused the request
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()

	var c cli
	parser, err := kong.New(&c,
		kong.Name("lifeboat"),
		kong.Description("Lifeboat brings dead servers back in seconds. It speaks the AWS Elastic Disaster Recovery API.\n\n"+
			"Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by the server."),
		kong.Vars{"version": version},
		kong.UsageOnError(),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.ExplicitGroups([]kong.Group{
			{Key: "run", Title: "Run it:"},
			{Key: "vault", Title: "Look after it (on the server's host):"},
			{Key: "client", Title: "Use it (over the DRS API; see `lifeboat env`):"},
			{Key: "access", Title: "Access and events:"},
		}),
	)
	if err != nil {
		panic(err) // the verbs above are declared wrongly
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "lifeboat: %v\n", err)
		var usage *kong.ParseError
		if errors.As(err, &usage) {
			fmt.Fprintf(os.Stderr, "`lifeboat --help` lists the verbs, `lifeboat VERB --help` the flags of one.\n")
		}
		return exitUsage
	}
	if err := command.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "lifeboat: %v\n", err)
		return exitCode(err)
	}
	return 0
}

// refusal is an error that a server answered a well-formed request with.
type refusal interface{ Refused() bool }

// usageError is a value on the command line that cannot be meant.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func exitCode(err error) int {
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	var r refusal
	if errors.As(err, &r) && r.Refused() {
		return exitRefused
	}
	return exitFailed
}
