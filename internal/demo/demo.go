// Package demo shows, in about two minutes and on one machine, what Lifeboat is
// for: a small shop takes orders, its machine is killed without warning, and
// StartRecovery brings it back from the vault. What it tells comes from outside
// of Lifeboat: from the AWS SDK and from the consoles of the two machines.
//
// The demo starts its own processes in a directory of its own and leaves nothing
// behind, but for that directory when something went wrong.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"lifeboat/internal/demo/guest"
	"lifeboat/internal/demo/rig"
)

// Config says how to run the demo.
type Config struct {
	// Binary is the path of the lifeboat binary; empty means the running one.
	Binary string
	// Dir is a directory to work in, made when it is missing; it keeps all logs.
	// Empty means a temporary one, removed when the demo succeeds.
	Dir string
	// Out is where the story is told.
	Out io.Writer
	// Terminal says that Out is a terminal: then progress is shown in place.
	Terminal bool
}

const (
	hostname = "shop-1"

	// Enough orders that a recovery without them would be noticed.
	wantOrders = 20
	// Points to wait for, so that replication is seen to go on after the first sync.
	wantPoints = 3
	// Orders to let in after that, so that the machine does not die at a moment of
	// our choosing.
	ordersAfterPoint = 4
	// The spacing of recovery points.
	epoch = time.Second

	// These only end a demo that hangs; on two cores everything takes a minute or two.
	bootLimit     = 4 * time.Minute
	protectLimit  = 4 * time.Minute
	recoveryLimit = 4 * time.Minute
	cleanupLimit  = time.Minute
)

// Run tells the story and returns nil when it ended well: the recovered machine
// has every order that was acknowledged before the recovery point, none torn, and
// takes new ones. Cancelling ctx ends it and cleans up.
func Run(ctx context.Context, cfg Config) error {
	s, err := newStage(cfg)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	err = s.play(ctx)
	if err = errors.Join(err, s.cleanUp(ctx)); err != nil {
		if ctx.Err() != nil && cfg.Dir == "" { // the user's wish, not a failure to look into
			err = errors.Join(err, os.RemoveAll(s.Dir))
		} else {
			s.say("It did not work. Everything that was logged is in %s", s.Dir)
		}
		return fmt.Errorf("demo: %w", err)
	}
	if cfg.Dir == "" {
		return os.RemoveAll(s.Dir)
	}
	s.say("Logs and the vault are kept in %s", s.Dir)
	return nil
}

// stage holds what is running.
type stage struct {
	*timeline
	*rig.Rig

	image     string
	source    *guest.Machine
	server    *rig.Server
	recovered recovered
}

func newStage(cfg Config) (*stage, error) {
	binary, dir := cfg.Binary, cfg.Dir
	var err error
	if binary == "" {
		if binary, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find the lifeboat binary: %w", err)
		}
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "lifeboat-demo-"); err != nil {
			return nil, fmt.Errorf("make a directory to work in: %w", err)
		}
	}
	r, err := rig.New(binary, dir)
	if err != nil {
		return nil, err
	}
	return &stage{timeline: newTimeline(cfg.Out, cfg.Terminal), Rig: r}, nil
}

// play is the story.
func (s *stage) play(ctx context.Context) error {
	s.say("Lifeboat demo: a shop's machine dies, and comes back from the vault.")

	if err := s.startServer(ctx); err != nil {
		return err
	}
	if err := s.openShop(ctx); err != nil {
		return err
	}
	protected, err := s.protect(ctx)
	if err != nil {
		return err
	}
	loss := s.disaster()
	if err := s.recover(ctx, protected); err != nil {
		return err
	}
	return s.report(protected, loss)
}

// startServer starts a server of its own and makes its account ready.
func (s *stage) startServer(ctx context.Context) error {
	done := s.progress("starting a server")
	server, err := s.StartServer(ctx)
	if err != nil {
		return err
	}
	s.server = server
	if err := s.server.Initialize(ctx); err != nil {
		return err
	}
	done("server ready at %s, vault encrypted, account initialised", s.server.Endpoint)
	return nil
}

// openShop builds the machine and waits until it takes orders.
func (s *stage) openShop(ctx context.Context) error {
	s.image = s.Path("shop.img")
	done := s.progress("building a small Linux machine (kernel and busybox of this distribution)")
	spec := guest.Spec{
		Hostname: hostname,
		SizeMiB:  256,
		Orders:   &guest.Orders{PerSecond: 5}, // without a pause: the disk is never at rest
		Agent: &guest.Agent{
			Binary: s.Binary, Server: s.seenByGuest(), CAFile: s.server.CAFile, Token: s.server.Token,
			Args: []string{"--tracker", "ebpf", "--epoch", epoch.String()},
		},
	}
	if err := os.Remove(s.image); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := guest.Build(ctx, spec, s.image); err != nil {
		return err
	}
	done("built %s: a disk of %s that boots by itself (GRUB, Linux, ext4)", hostname, megabytes(fileSize(s.image)))

	done = s.progress("booting it in QEMU")
	console, err := os.Create(s.Path("source-console.log"))
	if err != nil {
		return err
	}
	s.source, err = guest.Start(context.WithoutCancel(ctx), guest.Config{Image: s.image, MemoryMiB: 512, CPUs: 2, Network: true, ConsoleCopy: console})
	if err != nil {
		return errors.Join(err, console.Close())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, errors.New("the machine took too long to boot"))
	defer cancel()
	booted, err := s.source.Console.Wait(ctx, 0, guest.Booted)
	if err != nil {
		return fmt.Errorf("boot the shop's machine: %w\n%s", err, s.source.Console.Tail(10))
	}
	if _, err := s.source.Console.Wait(ctx, booted.Next, guest.WorkloadRunning); err != nil {
		return fmt.Errorf("start the shop's orders: %w\n%s", err, s.source.Console.Tail(10))
	}
	done("%s is up (Linux %s) and takes orders, each one fsynced before it is confirmed", hostname, booted.Groups[2])
	return nil
}

// seenByGuest is the URL of the API as the shop's machine reaches it.
func (s *stage) seenByGuest() string {
	return strings.Replace(s.server.Endpoint, "127.0.0.1", guest.HostAddress, 1)
}

// disaster kills the machine with its agent, and returns what was lost with them.
func (s *stage) disaster() disaster {
	s.source.Kill()
	at := time.Now()
	d := disaster{at: at, lastConfirmed: s.source.Console.LastDurable()}
	s.say("%s", s.bold("DISASTER: "+hostname+" is killed without warning (SIGKILL), and the agent within"))
	s.say("the last order it had confirmed was number %d", d.lastConfirmed)
	return d
}

// disaster is what is known of the end of the source.
type disaster struct {
	at            time.Time
	lastConfirmed int // number of the last order its console called durable
}

// cleanUp ends everything that runs. It has its own time, also when ctx ended.
func (s *stage) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), cleanupLimit, errors.New("cleaning up took too long"))
	defer cancel()
	var errs []error
	errs = append(errs, s.recovered.terminate(ctx, s))
	if s.source != nil {
		s.source.Kill()
	}
	if s.server != nil {
		errs = append(errs, s.server.Stop(ctx))
	}
	// A server leaves machines running when it ends; none may be left by us.
	errs = append(errs, s.QuitMachines())
	return errors.Join(errs...)
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
