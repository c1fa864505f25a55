package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
)

// What was not acknowledged is undone, in the reverse of the order it was sent.
func TestLedgerUndoesWhatWasNotAcknowledged(t *testing.T) {
	table := blocktrack.NewTable(4*blocktrack.ChunkSize, func([]byte) blocktrack.Digest { return blocktrack.Digest{} })
	disks := []*disk{{table: table}}
	var l ledger
	send := func(chunk int64, d byte) {
		l.note(undo{0, chunk, table.At(chunk), blocktrack.ChunkSize})
		table.Set(chunk, blocktrack.Digest{d})
	}
	l.begin(1)
	send(0, 1)
	send(1, 1)
	l.begin(2)
	send(1, 2)
	send(2, 2)
	send(1, 3) // twice in one epoch
	l.begin(3)
	send(0, 4)
	if got := l.backlog(1); got[0] != 6*blocktrack.ChunkSize {
		t.Errorf("backlog %v", got)
	}
	l.acknowledge(&replication.Ack{Epoch: 1, HeadNumber: 5, HeadHash: [32]byte{5}})
	if l.at() != (head{5, [32]byte{5}}) {
		t.Errorf("head %+v", l.at())
	}
	l.rollback(disks)
	for chunk, want := range []byte{1, 1, 0, 0} {
		if got := table.At(int64(chunk)); got != (blocktrack.Digest{want}) {
			t.Errorf("chunk %d is %v, acknowledged was %d", chunk, got[0], want)
		}
	}
	if got := l.backlog(1); got[0] != 0 {
		t.Errorf("backlog %v after a rollback", got)
	}
}

func TestLedgerAwaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		l.begin(1)
		l.begin(2)
		done := make(chan error, 3)
		wait := func(ctx context.Context) {
			refused, err := l.await(ctx, 2)
			if refused != nil {
				err = errRefused
			}
			done <- err
		}
		go wait(t.Context())
		l.acknowledge(&replication.Ack{Epoch: 1})
		synctest.Wait()
		if len(done) > 0 {
			t.Fatal("an older acknowledgement was taken for this one")
		}
		l.acknowledge(&replication.Ack{Epoch: 2})
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.begin(2)
		go wait(t.Context())
		synctest.Wait()
		l.refuse(&replication.Refused{Epoch: 2})
		if err := <-done; !errors.Is(err, errRefused) {
			t.Errorf("refused: %v", err)
		}
		l.rollback(nil)
		l.begin(2)
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		go wait(ctx)
		synctest.Wait()
		cancel(stop)
		if err := <-done; !errors.Is(err, stop) {
			t.Errorf("cancelled: %v", err)
		}
	})
}
