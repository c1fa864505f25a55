package guest_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/test/guest"
	"lifeboat/test/stamp"
)

// seedOf is the seed of a run: SEED from the environment, to do one again, or chance.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64() >> 1
	if s := os.Getenv("SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SEED: %v", err)
		}
	}
	t.Logf("again with: make soak COUNT=1 ROUNDS=%d SEED=%d", rounds(), seed)
	return seed
}

// rounds is how many times all faults are met: ROUNDS from the environment, or one.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("ROUNDS")); err == nil {
		return n
	}
	return 1
}

// clockSkew is how far a machine's clock may be from the server's, which dates no point
// later than it received it: machines begin with whole seconds, and emulated clocks drift.
const clockSkew = 2 * time.Second

// trial is a run of faults.
type trial struct {
	*testing.T
	*site
	*busy
	rng    *rand.Rand
	writer string // its process number
	agent  string
	before []point // seen before the latest fault
}

// A machine is written to without a pause while its agent is stopped, and killed, also
// while it holds the filesystems frozen, its network is cut, the server is killed, and its power
// is cut. No point is lost; every point is of one moment over all disks, the one that it
// says it is of; its filesystems need no repair; and the last one holds all that was
// written.
func TestPointsAreMoments(t *testing.T) {
	seed := seedOf(t)
	s := newSite(t)
	r := &trial{T: t, site: s, busy: newBusy(t, seed, s, guest.Config{}), rng: rand.New(rand.NewPCG(seed, 0))}
	r.writer = r.write(t)
	r.progress(t, 5)
	r.startAgent()
	s.follows(t, r.busy, r.progress(t, 5))
	faults := []func(){r.agentKilled, r.agentKilledFrozen, r.agentStopped, r.networkCut, r.serverKilled, r.powerLost}
	for range rounds() {
		r.rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		for _, fault := range faults {
			r.before = s.points(t)
			// Not synchronisation: the moment of the fault is what is varied.
			time.Sleep(time.Duration(r.rng.IntN(1500)) * time.Millisecond)
			fault()
			s.follows(t, r.busy, r.progress(t, 5))
			r.nothingLost()
		}
	}
	r.machine.Signal(t, "writer", int(syscall.SIGTERM))
	r.shell(t, "sync")
	last := r.log(t).Last()
	s.follows(t, r.busy, last)
	points := s.points(t)
	r.machine.Kill()
	t.Logf("%d operations, %d points; the agents' log:\n%s", last, len(points), r.told())
	r.check(r.sample(points, 4), last)
}

func (r *trial) startAgent() {
	r.Helper()
	r.agent = r.machine.Background(r.T, "agent", r.site.agent(protected...)...)
}

func (r *trial) agentKilled() {
	r.Log("the agent is killed")
	r.machine.Signal(r.T, "agent", int(syscall.SIGKILL))
	r.startAgent()
}

func (r *trial) agentStopped() {
	r.Log("the agent is stopped for a while")
	r.machine.Signal(r.T, "agent", int(syscall.SIGTERM))
	r.progress(r.T, 5)
	r.startAgent()
}

func (r *trial) agentKilledFrozen() {
	r.Log("the agent is killed while filesystems are frozen")
	r.machine.Run(r.T, "/inside", "kill-frozen", r.writer, r.agent)
	r.progress(r.T, 3) // the guard has thawed them
	r.agentKilled()
}

func (r *trial) networkCut() {
	cut := time.Duration(r.rng.IntN(3000)) * time.Millisecond
	r.Logf("the network is cut for %s", cut)
	r.machine.Plug(r.T, false)
	time.Sleep(cut) // as long as chance has it
	r.machine.Plug(r.T, true)
}

func (r *trial) serverKilled() {
	r.Log("the server is killed")
	r.server.Kill()
	r.progress(r.T, 5)
	r.start(r.T)
}

func (r *trial) powerLost() {
	r.Log("the power is cut")
	r.powerCut(r.T)
	r.writer = r.write(r.T)
	r.startAgent()
}

// nothingLost tells whether all points of before are still there.
func (r *trial) nothingLost() {
	r.Helper()
	now := r.points(r.T)
	for _, p := range r.before {
		if !slices.Contains(now, p) {
			r.Errorf("seed %d: point %+v is gone", r.plan.Seed, p)
		}
	}
}

var message = regexp.MustCompile(`level=(\w+) msg=("[^"]*"|\S+)`)

// told counts what the agents have logged.
func (r *trial) told() string {
	raw, err := os.ReadFile(r.machine.Log("agent"))
	if err != nil {
		return err.Error()
	}
	count := map[string]int{}
	for _, m := range message.FindAllStringSubmatch(string(raw), -1) {
		count[m[1]+" "+m[2]]++
	}
	var lines []string
	for what, n := range count {
		lines = append(lines, fmt.Sprintf("%6d %s", n, what))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// sample takes the first, the last, and some between.
func (r *trial) sample(points []point, n int) (some []point) {
	for len(points) > n {
		i := 1 + r.rng.IntN(len(points)-2)
		points = slices.Delete(slices.Clone(points), i, i+1)
	}
	return points
}

// check exports points and looks at them in another machine. All of the last one's
// operations must be there up to a number.
func (r *trial) check(points []point, last uint64) {
	r.Helper()
	dir := r.TempDir()
	var disks []guest.Disk
	for _, p := range points {
		for i := range r.disks {
			image := filepath.Join(dir, fmt.Sprintf("%s-%d", p.id, i))
			r.export(r.T, p, i, image)
			disks = append(disks, guest.Disk{Path: image, Bus: guest.Virtio})
		}
	}
	m := guest.Boot(r.T, guest.Config{Disks: disks})
	log := r.log(r.T)
	for n, p := range points {
		found, err := r.judge(m, r.names(n, n, n), last)
		done, _ := log.At(p.taken.Add(-clockSkew), 0)
		_, begun := log.At(p.taken, clockSkew)
		if n == len(points)-1 {
			done = last
		}
		switch {
		case err != nil:
			r.Errorf("seed %d: point %s (%s, %s): %v", r.plan.Seed, p.id, p.consistency, p.taken, err)
		case !found.Between(done, begun):
			r.Errorf("seed %d: point %s (%s, %s) was taken when between %d and %d operations were durable, and holds %s",
				r.plan.Seed, p.id, p.consistency, p.taken, done, begun, found)
		default:
			r.Logf("point %s (%s) holds %s", p.id, p.consistency, found)
		}
	}
	// This very check is able to fail: disks of different points are of no moment.
	end := len(points) - 1
	for _, mixed := range [][]string{r.names(0, end, end), r.names(end, 0, end), r.names(end, end, 0)} {
		if found, err := r.judge(m, mixed, last); err == nil && found.Between(last, last) {
			r.Errorf("seed %d: disks of the first and of the last point together pass for the last: %s", r.plan.Seed, found)
		}
	}
}

// names are the disks of points in the machine that checks them: of each disk, the
// number of the point that it is of.
func (r *trial) names(points ...int) (all []string) {
	for disk, p := range points {
		all = append(all, "/dev/vd"+string(rune('a'+p*len(r.disks)+disk)))
	}
	return all
}

// judge mounts the disks of a point, finds what they hold, and has their filesystems
// checked.
func (r *trial) judge(m *guest.Machine, disks []string, last uint64) (stamp.Found, error) {
	r.Helper()
	at := strings.Fields(r.logical)
	plan := r.plan
	plan.Targets = slices.Clone(plan.Targets)
	for i := range plan.Targets {
		plan.Targets[i].Path = strings.Replace(plan.Targets[i].Path, "/dev/vda", disks[0], 1)
	}
	raw, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	out, err := m.Do(guest.Command{Args: []string{"sh", "-ec", fmt.Sprintf(`
		export DM_DISABLE_UDEV=1
		dmsetup create volume --table "0 %s linear %s %s"
		mkdir -p /mnt/part /mnt/volume /mnt/nvme
		mount -t ext4 %s1 /mnt/part
		mount -t ext4 /dev/mapper/volume /mnt/volume
		mount -t xfs -o nouuid %s /mnt/nvme
		/inside check '%s' %d
		umount /mnt/part /mnt/volume /mnt/nvme
		e2fsck -fn %s1 >/tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }
		e2fsck -fn /dev/mapper/volume >/tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }
		xfs_repair -n %s >/tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }
		dmsetup remove volume`, at[1], disks[1], at[0], disks[0], disks[2], raw, last, disks[0], disks[2])}})
	if err != nil {
		m.Run(r.T, "sh", "-c", "umount /mnt/part /mnt/volume /mnt/nvme; dmsetup remove volume; true")
		return nil, err
	}
	var found stamp.Found
	return found, json.Unmarshal([]byte(out), &found)
}
