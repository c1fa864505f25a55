package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/demo/guest"
	"lifeboat/internal/demo/rig"
)

// protection is what is known of the protected machine when disaster strikes.
type protection struct {
	server     string
	total      int64 // bytes of its disks
	replicated int64 // bytes of them that the vault vouches for
	stored     int64 // bytes on the vault's disk
	syncTook   time.Duration
	points     int
	lastPoint  time.Time
}

// protect replicates the machine's disk until it is in the vault and recovery
// points follow each other while orders come in.
func (s *stage) protect(ctx context.Context) (protection, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, protectLimit, errors.New("replication took too long"))
	defer cancel()
	done := s.progress("its agent replicates the disk to the vault while the shop works")
	began := time.Now()
	var p protection
	var err error
	for p.syncTook == 0 {
		server, err := s.sourceServer(ctx)
		if err != nil {
			return p, err
		}
		if server != nil {
			p.server = aws.ToString(server.SourceServerID)
			state := p.read(server.DataReplicationInfo)
			s.update("%s, %s of %s", strings.ToLower(string(state)), megabytes(p.replicated), megabytes(p.total))
			if state == types.DataReplicationStateContinuous {
				p.syncTook = time.Since(began)
				break
			}
		}
		if err := s.waitABit(ctx); err != nil {
			return p, err
		}
	}
	done("%s is protected as %s: %s of disk replicated in %s", hostname, p.server, megabytes(p.total), seconds(p.syncTook))

	done = s.progress("waiting for consistent recovery points while orders come in without a pause")
	var enough time.Time // when enough orders were in, zero before
	for {
		p.points, p.lastPoint, err = s.points(ctx, p.server)
		if err != nil {
			return p, err
		}
		confirmed := s.source.Console.LastDurable()
		s.update("%d orders confirmed, %d recovery points", confirmed, p.points)
		if enough.IsZero() && confirmed >= wantOrders {
			enough = time.Now()
		}
		if !enough.IsZero() && p.points >= wantPoints && p.lastPoint.After(enough) {
			break
		}
		if err := s.waitABit(ctx); err != nil {
			return p, fmt.Errorf("%w: %d orders, %d recovery points that may be booted from", err, confirmed, p.points)
		}
	}
	// Disasters do not wait for a recovery point: a few orders come after the last.
	for confirmed := s.source.Console.LastDurable(); s.source.Console.LastDurable() < confirmed+ordersAfterPoint; {
		if err := s.waitABit(ctx); err != nil {
			return p, err
		}
	}
	p.stored = sizeBelow(filepath.Join(s.Data(), "vault"))
	done("%d orders confirmed so far, %d recovery points to choose from", s.source.Console.LastDurable(), p.points)
	return p, nil
}

// waitABit paces the questions, and notices when a process that is needed is gone.
func (s *stage) waitABit(ctx context.Context) error {
	if err := s.server.Ended(); err != nil {
		return err
	}
	if ended, found := s.source.Console.Last(guest.AgentEnded); found {
		return fmt.Errorf("the shop's agent ended: %s", ended.Text)
	}
	select {
	case <-s.source.Done():
		return fmt.Errorf("the shop's machine ended by itself; its last words:\n%s", s.source.Console.Tail(10))
	default:
	}
	return rig.Pause(ctx, 100*time.Millisecond)
}

func (s *stage) sourceServer(ctx context.Context) (*types.SourceServer, error) {
	out, err := s.server.DescribeSourceServers(ctx, &awsdrs.DescribeSourceServersInput{})
	if err != nil {
		return nil, fmt.Errorf("look for the source server: %w", err)
	}
	if len(out.Items) == 0 {
		return nil, nil
	}
	return &out.Items[0], nil
}

// read takes over what replication says of itself.
func (p *protection) read(info *types.DataReplicationInfo) types.DataReplicationState {
	if info == nil {
		return ""
	}
	p.total, p.replicated = 0, 0
	for _, disk := range info.ReplicatedDisks {
		p.total += disk.TotalStorageBytes
		p.replicated += disk.ReplicatedStorageBytes
	}
	return info.DataReplicationState
}

// points counts the recovery points that may be booted from, and finds the time
// of the last.
func (s *stage) points(ctx context.Context, server string) (int, time.Time, error) {
	n, last := 0, time.Time{}
	pages := awsdrs.NewDescribeRecoverySnapshotsPaginator(s.server, &awsdrs.DescribeRecoverySnapshotsInput{SourceServerID: &server})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return 0, last, fmt.Errorf("list the recovery points: %w", err)
		}
		n += len(page.Items)
		for _, point := range page.Items {
			taken, err := time.Parse(time.RFC3339, aws.ToString(point.Timestamp))
			if err != nil {
				return 0, last, fmt.Errorf("time of recovery point %s: %w", aws.ToString(point.SnapshotID), err)
			}
			if taken.After(last) {
				last = taken
			}
		}
	}
	return n, last, nil
}

// confirmedBefore returns the last order that the console had called durable by
// a moment.
func confirmedBefore(console *guest.Console, moment time.Time) int {
	n := 0
	for _, line := range console.Lines(0) {
		if line.At.After(moment) {
			break
		}
		if groups := guest.OrderDurable.FindStringSubmatch(line.Text); groups != nil {
			n, _ = strconv.Atoi(groups[1]) // digits, by the pattern
		}
	}
	return n
}

func sizeBelow(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() { // temporary files may be gone again
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

func clock(t time.Time) string { return t.Local().Format("15:04:05.0") }
