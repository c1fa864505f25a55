package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
)

// What was not acknowledged is forgotten, whatever was sent over it.
func TestLedgerUndoesWhatWasNotAcknowledged(t *testing.T) {
	table := blocktrack.NewTable(4*blocktrack.ChunkSize, func([]byte) blocktrack.Digest { return blocktrack.Digest{} })
	disks := []*disk{{table: table}}
	var l ledger
	send := func(chunk int64, d uint64) {
		l.note(change{disks[0], chunk, blocktrack.Entry{d}, blocktrack.ChunkSize})
	}
	want := func(when string, want ...uint64) {
		t.Helper()
		for chunk, d := range want {
			if got, err := table.Newest(int64(chunk)); err != nil || got != (blocktrack.Entry{d}) {
				t.Errorf("%s: chunk %d is %v, want %d; %v", when, chunk, got[0], d, err)
			}
		}
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
	if got := l.backlog(disks); got[0] != 6*blocktrack.ChunkSize {
		t.Errorf("backlog %v", got)
	}
	want("sent", 4, 3, 2, 0)
	l.acknowledge(&replication.Ack{Epoch: 1, HeadNumber: 5, HeadHash: [32]byte{5}})
	if l.at() != (head{5, [32]byte{5}}) {
		t.Errorf("head %+v", l.at())
	}
	want("the first acknowledged", 4, 3, 2, 0)
	undone := l.rollback(disks)
	want("rolled back", 1, 1, 0, 0)
	if got := undone[0].Bytes(); got != 3*blocktrack.ChunkSize {
		t.Errorf("%d bytes are to be read again", got)
	}
	if got := l.backlog(disks); got[0] != 0 {
		t.Errorf("backlog %v after a rollback", got)
	}
}

// A lost acknowledgement is found out by the head that the server names next: by its
// number and the time of its point, and by nothing less.
func TestLedgerResolvesALostAcknowledgement(t *testing.T) {
	at := time.Unix(1000, 17)
	for _, test := range []struct {
		name  string
		now   head
		taken time.Time
		want  []uint64 // of chunks 0 to 2; nil: not resolved
	}{
		{"the point", head{7, [32]byte{7}}, at, []uint64{3, 2, 1}},
		{"nothing of it", head{5, [32]byte{5}}, at, nil},
		{"another's point", head{7, [32]byte{7}}, at.Add(1), nil},
		{"the progress before", head{6, [32]byte{6}}, at, nil},
		{"more than was sent", head{8, [32]byte{8}}, at, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := blocktrack.NewTable(3*blocktrack.ChunkSize, func([]byte) blocktrack.Digest { return blocktrack.Digest{} })
			disks := []*disk{{table: table}}
			l := ledger{head: head{5, [32]byte{5}}}
			send := func(chunk int64, d uint64) {
				l.note(change{disks[0], chunk, blocktrack.Entry{d}, blocktrack.ChunkSize})
			}
			l.begin(1)
			send(0, 1)
			send(2, 1)
			l.begin(2)
			send(1, 2)
			send(0, 3)
			l.committing(at)
			l.begin(3)
			send(2, 9)
			l.rollback(disks)
			if got := l.resolve(test.now, test.taken); got != (test.want != nil) {
				t.Fatalf("resolved: %t", got)
			}
			want, now := test.want, test.now
			if want == nil {
				want, now = []uint64{0, 0, 0}, head{5, [32]byte{5}}
			}
			for i, w := range want {
				if e, err := table.Newest(int64(i)); err != nil || e[0] != w {
					t.Errorf("chunk %d is %d, want %d; %v", i, e[0], w, err)
				}
			}
			if l.at() != now {
				t.Errorf("head %d", l.at().number)
			}
		})
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
