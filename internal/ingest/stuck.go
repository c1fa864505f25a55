package ingest

import (
	"time"

	"lifeboat/internal/drs"
)

// stuckAfter is how long the vault may take for one message of an agent before people are
// told. A healthy one takes milliseconds, and a busy one seconds.
const stuckAfter = 15 * time.Second

// stuck tells of a vault that does not take what it is given: nothing fails, and no point
// is made. One goroutine uses it.
type stuck struct{ timer *time.Timer }

func (s *session) watchWorker() stuck {
	timer := time.AfterFunc(stuckAfter, func() {
		const text, next = "the vault's store has not answered for 15 seconds", "look whether its disk or bucket works (/readyz of the server tells more); all goes on by itself when it answers"
		s.status.warn(drs.SnapshotsFailure, text, next)
		s.srv.log.Warn(text+"; the agent waits", "server", s.server, "next_step", next)
	})
	timer.Stop()
	return stuck{timer}
}

func (w stuck) begin() { w.timer.Reset(stuckAfter) }
func (w stuck) end()   { w.timer.Stop() }
