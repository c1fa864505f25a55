package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/ebpf"
)

// pinned is a tracker that outlives the agent.
type pinned interface {
	// Adopted tells whether the tracker of the agent before this one was taken over, and
	// the note of its last Settle.
	Adopted() (note []byte, yes bool)
	// Settle says that all that Swaps have named has been dealt with, as the note says.
	Settle(note []byte) error
	// Note replaces the note of the last Settle.
	Note(note []byte) error
}

// standing says what the disks need not be read for: but for what is to be read and
// what the tracker will name, they hold what the vault held at Head, with what
// Session has committed since. It outlives the agent as the note of a pinned tracker.
type standing struct {
	Server  drs.SourceServerID
	Volumes []uint32 // of the disks, in the tracker's order
	Number  uint64   // of Head
	Hash    []byte
	Session []byte // instance of the session that went on from Head; it alone could commit
}

// holds tells whether it does for the server's head now, which an agent's session
// made; zeros: not known which. What a session committed was read under the tracker's
// eyes, so whether its acknowledgement arrived does not matter.
func (st *standing) holds(server drs.SourceServerID, now head, author [16]byte) bool {
	if st == nil || st.Server != server {
		return false
	}
	return st.of(now) || author != [16]byte{} && bytes.Equal(author[:], st.Session)
}

func (st *standing) of(h head) bool {
	return st != nil && st.Number == h.number && bytes.Equal(st.Hash, h.hash[:])
}

// standingAt is the standing of this session, which has committed nothing yet or has
// had everything acknowledged.
func (s *session) standingAt(at head) *standing {
	st := &standing{Server: s.server, Number: at.number, Hash: at.hash[:], Session: s.instance[:]}
	for _, d := range s.a.disks.all {
		st.Volumes = append(st.Volumes, d.volume)
	}
	return st
}

// resume finds out whether the disks have to be read as a whole, before anything is
// sent, and has it done if so.
func (s *session) resume(now head) {
	a := s.a
	before, next := a.standing, s.standingAt(now)
	if a.loaded { // an acknowledgement was lost, or somebody else has written
		at := a.ledger.at()
		before.Number, before.Hash = at.number, at.hash[:]
	}
	holds := before.holds(s.server, now, s.welcome.Author) && slices.Equal(before.Volumes, next.Volumes)
	switch {
	case !holds:
		if before != nil {
			a.log.Info("all disks are read and compared: the vault has changed, and not by what this agent knows of", "head", now.number)
		}
		a.complete, a.noted = false, false
		a.rescan(whyWhole(before))
		s.phase(replication.PhaseScanning, "", "")
	case a.adopted:
		a.todo = make([]blocktrack.Changes, len(a.disks.all))
		a.complete, a.noted = true, true
		s.phase(replication.PhaseBacklog, "", "")
		a.log.Info("the tracker of the agent before went on: only what changed is read", "head", now.number)
	}
	a.adopted = false
	a.readLater()
	a.stand(next)
}

// whyWhole is why disks are read as a whole, given what was known of the vault.
func whyWhole(before *standing) reason {
	if before == nil {
		return nobodyTracked
	}
	return vaultDiffers
}

// stand makes a standing the agent's, and that of the agent after it if it had one
// to go on from: what the tracker keeps is then about either.
func (a *agent) stand(st *standing) {
	a.standing = st
	if a.noted {
		a.note(a.pinned.Note)
	}
}

// settle makes what the vault holds now the new standing, where nothing is left to
// be read or acknowledged. The cutter calls it between passes.
func (s *session) settle() {
	a := s.a
	at := a.ledger.at()
	if !a.unsettled && a.standing.of(at) {
		return
	}
	if !a.complete || !a.ledger.idle() {
		return
	}
	for i, d := range a.disks.all {
		if d.joining.Load() || d.left.IsZero() && !a.todo[i].Empty() {
			return
		}
	}
	a.unsettled, a.standing = false, s.standingAt(at)
	if a.pinned != nil {
		a.noted = a.note(a.pinned.Settle)
	}
}

// note hands the standing to the pinned tracker. It tells whether it could.
func (a *agent) note(to func(note []byte) error) bool {
	note, err := json.Marshal(a.standing)
	if err == nil {
		err = to(note)
	}
	if err != nil {
		a.log.Warn("the next start of the agent reads more than it would have to", "err", err)
	}
	return err == nil
}

// inherit takes over the standing of the agent before this one, if its tracker was.
func (a *agent) inherit() {
	note, adopted := a.pinned.Adopted()
	st := &standing{}
	if adopted && note != nil && json.Unmarshal(note, st) == nil {
		a.standing, a.adopted = st, true
	}
}

// pinDir is where the tracker of an agent with this state directory is pinned.
func pinDir(pins, state string) (string, error) {
	state, err := filepath.Abs(state)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(state))
	return filepath.Join(pins, "agent-"+hex.EncodeToString(sum[:8])), nil
}

// RemovePins ends the tracking that an agent with the given Pins and State has left
// behind. None may run. It is no error if there is nothing.
func RemovePins(pins, state string) error {
	if pins == "" {
		return nil
	}
	dir, err := pinDir(pins, state)
	if err != nil {
		return err
	}
	return ebpf.RemovePins(dir)
}

// openEBPF opens the tracker, one that outlives this process where that can be.
func (a *agent) openEBPF(disks []ebpf.Disk) (*ebpf.Tracker, error) {
	if a.cfg.Pins == "" {
		return ebpf.Open(disks)
	}
	dir, err := pinDir(a.cfg.Pins, a.cfg.State)
	if err != nil {
		return nil, err
	}
	tracker, err := ebpf.OpenPinned(dir, disks)
	var pin *ebpf.PinError
	if errors.As(err, &pin) {
		if tracker, err = ebpf.Open(disks); err == nil {
			a.log.Warn("tracking ends with this process: its next start reads all disks", "err", pin)
		}
		return tracker, err
	}
	if err == nil {
		a.pinned = tracker
		a.inherit()
	}
	return tracker, err
}

// leavePins removes the pins of an agent that was turned away: nobody will take over.
func (a *agent) leavePins(err error) {
	var told refusal
	if a.pinned == nil || !errors.As(err, &told) {
		return
	}
	if a.outside != nil {
		a.outside.Forget("nobody goes on with it") // so that Close leaves nothing
	}
	_ = a.tracker.Close() // nothing is asked of it any more
	a.removePins()
}

// removePins ends what an agent before this one has left behind. Who may not look
// cannot have been that agent.
func (a *agent) removePins() {
	if err := RemovePins(a.cfg.Pins, a.cfg.State); err != nil && !errors.Is(err, fs.ErrPermission) {
		a.log.Warn("the kernel goes on tracking for nobody until the next reboot", "err", err)
	}
}
