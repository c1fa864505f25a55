package demo

import (
	"fmt"
	"time"

	"lifeboat/internal/demo/guest"
)

// report tells the figures, and whether the promise was kept.
func (s *stage) report(p protection, d disaster) error {
	r := s.recovered
	promised := confirmedBefore(s.source.Console, r.pointTaken)
	lost := max(0, d.lastConfirmed-r.ledger.Last)

	s.heading("What happened")
	s.detail("disk protected", "%s, in the vault after %s", megabytes(p.total), seconds(p.syncTook))
	s.detail("bytes in the vault", "%s for %d recovery points (compressed and encrypted)", megabytes(p.stored), p.points)
	s.detail("recovery point used", "%s at %s, %s before the disaster", r.pointID, clock(r.pointTaken), seconds(d.at.Sub(r.pointTaken)))
	s.detail("its consistency", "%s", explainConsistency(s.server.Consistency(r.pointID)))
	s.detail("recovery points asked for", "one every %s, of a disk that is never at rest", epoch)
	s.detail("orders confirmed by the dead machine", "%d, of which %d before that point", d.lastConfirmed, promised)
	s.detail("orders recovered", "%s", describeLedger(r.ledger))
	s.detail("orders lost", "%s", describeLoss(lost))
	s.detail("StartRecovery to first instruction", "%s", seconds(r.firstInstruction.Sub(r.asked)))
	s.detail("StartRecovery to orders checked", "%s", seconds(r.checked.Sub(r.asked)))
	s.detail("StartRecovery to workload running", "%s (processor emulated: that is most of it)", seconds(r.running.Sub(r.asked)))
	err := verdict(r, d, promised)
	if err == nil {
		s.heading("The machine is back: every order it had confirmed before the recovery point is there, and it takes new ones.")
	}
	fmt.Fprintln(s.out)
	return err
}

// verdict is nil when the recovered machine kept every promise.
func verdict(r recovered, d disaster, promised int) error {
	switch {
	case !r.ledger.Whole():
		return fmt.Errorf("the recovered orders are damaged: %+v", r.ledger)
	case r.ledger.Last < promised:
		return fmt.Errorf("order %d was confirmed before the recovery point of %s, and only %d came back",
			promised, r.pointTaken.Format(time.RFC3339Nano), r.ledger.Last)
	case r.ledger.Last > d.lastConfirmed+1:
		return fmt.Errorf("the recovered machine has %d orders, and its source had only begun %d", r.ledger.Last, d.lastConfirmed+1)
	}
	return nil
}

func describeLedger(l guest.Ledger) string {
	if l.Whole() {
		return fmt.Sprintf("1 to %d, none missing, every checksum right", l.Last)
	}
	return fmt.Sprintf("%d to %d, %d missing, %d torn, %d repeated", l.First, l.Last, l.Missing, l.Torn, l.Repeated)
}

func describeLoss(lost int) string {
	switch lost {
	case 0:
		return "none"
	case 1:
		return "1, confirmed after the recovery point"
	}
	return fmt.Sprintf("%d, all confirmed after the recovery point", lost)
}

func explainConsistency(c string) string {
	switch c {
	case "crash":
		return "crash-consistent: the disk as at one instant, like after a power cut"
	case "filesystem":
		return "filesystem-consistent: taken with all filesystems frozen"
	case "application":
		return "application-consistent: taken with applications quiesced"
	case "fuzzy":
		return "fuzzy: read while it changed; nothing is promised of it"
	}
	return c
}
