package ingest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/replication"
)

func TestPointWithoutAgent(t *testing.T) {
	r := newRig(t, nil)
	if _, err := r.server.TakePoint(context.Background(), someServer); !errors.Is(err, ingest.ErrAgentNotConnected) {
		t.Errorf("a point of nobody: %v", err)
	}
	if r.server.Connected(someServer) {
		t.Error("nobody is connected")
	}
}

// Many who ask at once all get a point, taken after they asked.
func TestPointsOnDemand(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	disk := image(t, 8<<20, seed(t))
	cfg := r.config(t.TempDir(), disk)
	cfg.Epoch = time.Hour // nothing but the request makes a point
	a := runAgent(cfg)
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	write(t, disk, []byte("before all asked"), 77)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			asked := time.Now()
			p, err := r.server.TakePoint(ctx, server)
			if err != nil {
				t.Error(err)
				return
			}
			if p.Taken.Before(asked) || p.Taken.Before(p.Expected) || !p.Bootable() || p.SourceServer != server {
				t.Errorf("asked at %s, got %+v", asked, p)
			}
			wantContent(t, r.vault, p, disk)
		})
	}
	wg.Wait()

	// Who gives up does not disturb the others.
	gone, leave := context.WithCancelCause(context.Background())
	why := errors.New("had enough")
	leave(why)
	if _, err := r.server.TakePoint(gone, server); !errors.Is(err, why) {
		t.Errorf("given up: %v", err)
	}
	r.takePoint(server)

	// A break while somebody waits is told at once.
	r.proxy.cut()
	if _, err := r.server.TakePoint(ctx, server); !errors.Is(err, ingest.ErrAgentNotConnected) {
		t.Errorf("point over a cut line: %v", err)
	}
	r.proxy.mend()
}

// What an agent says of its points is believed within bounds: no point of the
// future or older than the one before, none better than its method can prove.
func TestPointsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.make(t, someServer)
	conn, _, err := r.greet(t, certificate(t, r.authority, someServer, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Send(&replication.Disks{Disks: []replication.Disk{{Device: "/dev/sda", Size: 1 << 20}}}); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	last := begun
	for i, test := range []struct {
		off                 time.Duration // of the agent's clock
		consistency, method uint8
		want                drs.Consistency
	}{
		{100 * 365 * 24 * time.Hour, replication.ConsistencyApplication, replication.MethodQuietPass, drs.CrashConsistent},
		{-time.Hour, replication.ConsistencyFilesystem, replication.MethodQuietPass, drs.CrashConsistent},
		{0, replication.ConsistencyFuzzy, replication.MethodQuietPass, drs.Fuzzy},
		{0, replication.ConsistencyCrash, replication.MethodNone, drs.Fuzzy},
		{0, replication.ConsistencyApplication, 99, drs.Fuzzy},
	} {
		taken := time.Now().Add(test.off)
		for _, m := range []replication.Message{
			&replication.Begin{Epoch: uint64(i) + 1},
			&replication.Commit{Epoch: uint64(i) + 1, Point: true, Consistency: test.consistency, Method: test.method, Expected: taken, Taken: taken},
		} {
			if err := conn.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		r.catalog.await(t, "the point", func() bool { return len(r.catalog.points[someServer]) == i+1 })
		p := r.catalog.points[someServer][i]
		if p.Taken.Before(last) || p.Taken.After(time.Now()) || p.Expected.After(p.Taken) {
			t.Errorf("after one of %s by a clock off by %s: expected %s, taken %s", last, test.off, p.Expected, p.Taken)
		}
		if p.Consistency != test.want {
			t.Errorf("point %d is %s, want %s", i, p.Consistency, test.want)
		}
		last = p.Taken
	}

	if err := conn.Send(&replication.Heartbeat{AsOf: begun.Add(24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	asOf := func() time.Time { return r.catalog.info[someServer].AsOf }
	r.catalog.await(t, "the heartbeat", func() bool { return asOf().After(last) })
	r.catalog.mu.Lock()
	defer r.catalog.mu.Unlock()
	if asOf().After(time.Now()) {
		t.Errorf("the vault holds all until %s, and it is %s", asOf(), time.Now())
	}
}

// A disk that never rests gets fuzzy points, and the reason why.
func TestRestlessDiskGetsFuzzyPoints(t *testing.T) {
	r := newRig(t, nil)
	disk := image(t, 8<<20, seed(t))
	cfg := r.config(t.TempDir(), disk)
	cfg.FuzzyAfter = 200 * time.Millisecond
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
				write(t, disk, binary.LittleEndian.AppendUint64(nil, n), int64(n%2048)*4096)
			}
		}
	}()
	rest := sync.OnceFunc(func() { close(stop); <-stopped })
	defer rest()
	a := runAgent(cfg)
	defer a.stop(t)
	fuzzy := func(p drs.RecoveryPoint) bool { return p.Consistency == drs.Fuzzy && p.Method == drs.NoGuarantee }
	r.catalog.await(t, "a fuzzy point and NOT_CONVERGING", func() bool {
		for server, points := range r.catalog.points {
			info := r.catalog.info[server]
			return slices.ContainsFunc(points, fuzzy) && info.Error != nil && info.Error.Code == drs.NotConverging
		}
		return false
	})
	server := r.only()
	// A busy machine may let the writer rest for a pass; not for ever.
	for deadline := time.Now().Add(patience); ; {
		if p := r.takePoint(server); !p.Bootable() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("every point of a disk that changes all the time is consistent")
		}
	}
	rest()
	r.catalog.await(t, "a consistent point", func() bool {
		points := r.catalog.points[server]
		return points[len(points)-1].Bootable() && r.catalog.info[server].Error == nil
	})
	wantContent(t, r.vault, r.takePoint(server), disk)
}

// While nothing changes no point is made, but the moment that the vault is equal
// to moves on.
func TestHeartbeatMovesThePointInTime(t *testing.T) {
	t.Parallel()
	f := &faultVault{}
	r := newRig(t, faulty(f))
	disk := image(t, 4<<20, seed(t))
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	taken := r.catalog.points[server][0].Taken
	head := func() uint64 {
		points, err := r.vault.Points(context.Background(), server)
		if err != nil {
			t.Fatal(err)
		}
		return points[len(points)-1].Epoch
	}
	epoch := head()
	r.catalog.await(t, "a later moment", func() bool { return r.catalog.info[server].AsOf.Sub(taken) > time.Second })
	if len(r.catalog.points[server]) != 1 || head() != epoch {
		t.Error("points were made of nothing")
	}
}

// The states of a server's life come in order, each allowed by the rules, and a
// lost agent is an error but no change of state.
func TestStates(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	disk := image(t, 8<<20, seed(t))
	a := runAgent(r.config(t.TempDir(), disk))
	r.catalog.await(t, "CONTINUOUS", func() bool {
		for _, info := range r.catalog.info {
			return info.State == drs.ReplicationContinuous
		}
		return false
	})
	server := r.only()
	r.catalog.await(t, "all replicated", func() bool {
		info := r.catalog.info[server]
		return len(info.Disks) == 1 && info.Disks[0].Replicated == 8<<20 && info.Disks[0].Total == 8<<20 && info.Disks[0].Device == disk
	})
	a.stop(t)
	r.catalog.await(t, "AGENT_NOT_SEEN", func() bool {
		info := r.catalog.info[server]
		return info.Error != nil && info.Error.Code == drs.AgentNotSeen && info.State == drs.ReplicationContinuous
	})
	r.catalog.mu.Lock()
	defer r.catalog.mu.Unlock()
	states := r.catalog.states[server]
	if !slices.Contains(states, drs.ReplicationInitialSync) || states[len(states)-1] != drs.ReplicationContinuous {
		t.Errorf("states %v", states)
	}
	for i := 1; i < len(states); i++ {
		// Reports may skip a state that was short, never invent one.
		if states[i] == drs.ReplicationStalled || states[i] == drs.ReplicationBacklog {
			t.Errorf("states %v", states)
		}
	}
	for _, step := range r.catalog.info[server].Steps {
		if step.Status != drs.StepSucceeded {
			t.Errorf("step %s is %s", step.Name, step.Status)
		}
	}
	if p := r.catalog.props[server]; p.Hostname != "source" || len(p.Disks) != 1 {
		t.Errorf("properties %+v", p)
	}
}

// A server that was expected from the start and whose agent never came.
func TestAgentThatNeverCame(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.server.Expect(someServer, drs.DataReplicationInfo{State: drs.ReplicationContinuous})
	r.catalog.await(t, "AGENT_NOT_SEEN", func() bool {
		info := r.catalog.info[someServer]
		return info.Error != nil && info.Error.Code == drs.AgentNotSeen && info.State == drs.ReplicationContinuous
	})
}

// Settings reach a running agent.
func TestThrottleIsChangedLive(t *testing.T) {
	t.Parallel()
	f := &faultVault{}
	r := newRig(t, faulty(f))
	r.catalog.settings = ingest.Settings{ThrottleMbps: 1}
	rng := seed(t)
	disk := image(t, 64<<20, rng)
	random := make([]byte, 16<<20) // minutes at 1 Mbps, more than a test waits
	rng.Read(random)
	write(t, disk, random, 0)
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "INITIAL_SYNC", func() bool {
		for _, info := range r.catalog.info {
			return info.State == drs.ReplicationInitialSync
		}
		return false
	})
	r.catalog.mu.Lock()
	early := len(r.catalog.points)
	r.catalog.mu.Unlock()
	if early > 0 {
		t.Error("the throttle was not kept")
	}
	for server := range r.catalog.info {
		r.server.Reconfigure(server, ingest.Settings{})
	}
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
}

// A deleted server's session ends, and its agent with it.
func TestForget(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := runAgent(r.config(t.TempDir(), image(t, 4<<20, seed(t))))
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	r.server.Forget(server, "The source server was deleted.")
	if r.server.Connected(server) {
		t.Error("still connected")
	}
	select {
	case err := <-a.err:
		if err == nil {
			t.Error("the agent ended without a reason")
		}
	case <-time.After(patience):
		t.Fatal("the agent goes on")
	}
}

// began tells how often a server's replication was initiated, and whether it is
// continuous now.
func (c *memCatalog) began(server drs.SourceServerID) (times int, continuous bool) {
	states := c.states[server]
	for _, s := range states {
		if s == drs.ReplicationInitiating {
			times++
		}
	}
	return times, len(states) > 0 && states[len(states)-1] == drs.ReplicationContinuous
}

// An agent whose replication is stopped stays, asks again, and goes on when it may;
// one that is told to restart does so at once.
func TestPauseAndRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	config := r.config(t.TempDir(), image(t, 4<<20, seed(t)))
	config.AskStopped = 20 * time.Millisecond
	a := runAgent(config)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	settled := func(times int) func() bool {
		return func() bool {
			n, continuous := r.catalog.began(server)
			return n == times && continuous
		}
	}
	r.catalog.await(t, "continuous replication", settled(1))

	r.server.Restart(server, "a test wants it")
	r.catalog.await(t, "another session", settled(2))

	asked := 0
	r.catalog.change(func() { r.catalog.refusal = fmt.Errorf("%s: %w", server, ingest.ErrStopped); asked = r.catalog.asked })
	r.server.Pause(server, "replication was stopped")
	if r.server.Connected(server) {
		t.Error("still connected")
	}
	r.catalog.await(t, "the agent to ask again and again", func() bool { return r.catalog.asked >= asked+3 })
	r.catalog.change(func() { r.catalog.refusal = nil })
	r.catalog.await(t, "replication to go on", settled(3))
	select {
	case err := <-a.err:
		t.Errorf("the agent ended: %v", err)
	default:
	}
}

// Who asks for a point while the vault refuses epochs learns so, and why, without
// waiting until it has room again; and gets a point when it has.
func TestPointOfARefusingVault(t *testing.T) {
	t.Parallel()
	f := &faultVault{}
	r := newRig(t, faulty(f))
	disk := image(t, 16<<20, seed(t))
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()

	f.set(nil, refuseAll)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, when := range []string{"found out by this request", "known before it"} {
		_, err := r.server.TakePoint(ctx, server)
		if !errors.Is(err, ingest.ErrNoPoint) || !strings.Contains(err.Error(), "the vault is full") {
			t.Fatalf("%s: %v, want ErrNoPoint with the cause", when, err)
		}
	}
	if !r.server.Connected(server) {
		t.Error("the session ended for a trouble that passes")
	}
	f.set(nil, nil)
	wantContent(t, r.vault, r.takePoint(server), disk)
}
