package agent

import (
	"errors"
	"fmt"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/ebpf"
)

// The trackers that Config.Tracker names.
const (
	trackerAuto = "auto"
	trackerEBPF = "ebpf"
	trackerScan = "scan"
	trackerQEMU = "qemu"
)

// openTracker opens the tracker that was asked for, in place of the one there was,
// and has all disks read anew. Where ebpf cannot be had and need not, scan finds
// the changes; the log says why. The tracker of a machine protected from outside
// stays: it knows by itself what it missed.
func (a *agent) openTracker() error {
	if a.outside != nil {
		return nil
	}
	again, why := a.tracker != nil, nobodyTracked
	if again {
		why = diskReturned
		_ = a.tracker.Close() // all is read anew: there is nothing to lose
	}
	a.rescan(why)
	a.pinned, a.adopted, a.noted = nil, false, false
	a.tracker, a.live = blocktrack.Scan{Disks: len(a.disks.all)}, nil
	if again || a.cfg.Tracker == trackerScan {
		a.removePins()
	}
	if a.cfg.Tracker == trackerScan {
		return nil
	}
	var disks []ebpf.Disk
	blocks := 0
	present := a.disks.present()
	for _, i := range present {
		d := a.disks.all[i]
		disks = append(disks, ebpf.Disk{Path: d.name, Size: d.size})
		if d.dev.Block() {
			blocks++
		}
	}
	if blocks == 0 && a.cfg.Tracker == trackerAuto {
		return nil // image files: nobody expects otherwise
	}
	tracker, err := a.openEBPF(disks)
	var reason *ebpf.UnavailableError
	switch {
	case err == nil:
		a.live = tracker
		if len(present) < len(a.disks.all) {
			a.live = nil
			a.live = a.alongside(watched{tracker, present})
		}
		a.tracker = a.live
		a.log.Info("tracking writes in the kernel", "tracker", tracker.Name(), "grain", tracker.Grain(), "pinned", a.pinned != nil)
	case a.cfg.Tracker == trackerEBPF && !again:
		return fmt.Errorf("%w; with --tracker auto or scan the disks are scanned for changes instead", err)
	case errors.As(err, &reason):
		a.log.Warn("writes cannot be tracked: the disks are scanned for changes", "tracker", trackerScan, "err", err)
	default:
		return err
	}
	return nil
}

// rescan has all of all disks read by the next pass.
func (a *agent) rescan(why reason) {
	a.todo = make([]blocktrack.Changes, len(a.disks.all))
	for i := range a.todo {
		a.todo[i].All = true
		a.disks.all[i].whole = why
	}
}

// distrust has all disks read: what became of a disk while it was not to be had, no tracker
// has seen. That holds for the session and the agent after this one, too, for either may be
// the one that finds it again.
func (a *agent) distrust() {
	a.rescan(diskReturned)
	if a.noted {
		a.noted = false
		if err := a.pinned.Note([]byte("{}")); err != nil { // no vault stands like that
			a.log.Warn("an agent that starts before all disks were read may miss what became of one", "err", err,
				"next_step", "leave this one running until it says CONTINUOUS")
		}
	}
}

// rollback takes the tables back to what the vault has acknowledged, and has what
// was sent and not acknowledged read again.
func (a *agent) rollback() {
	for i, c := range a.ledger.rollback(a.disks.all) {
		a.todo[i] = blocktrack.Union(a.todo[i], c)
	}
}

// atRest tells whether the disks are known, without reading them, to be as the
// newest pass found them.
func (a *agent) atRest() (bool, error) {
	if a.live == nil || !a.complete {
		return false, nil
	}
	for i, c := range a.todo {
		if d := a.disks.all[i]; !c.Empty() && d.left.IsZero() && !d.joining.Load() {
			return false, nil
		}
	}
	return a.live.Quiet()
}
