package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/demo/guest"
	"lifeboat/internal/demo/rig"
)

// recovered is the machine that comes back.
type recovered struct {
	job      string
	instance string
	console  *guest.Console
	stop     context.CancelFunc // ends following the console

	asked            time.Time // StartRecovery was called
	firstInstruction time.Time
	checked          time.Time // it had checked its orders
	running          time.Time // its first new order was durable
	ledger           guest.Ledger
	pointTaken       time.Time
	pointID          string
}

// recover calls StartRecovery and waits until the machine works again.
func (s *stage) recover(ctx context.Context, p protection) error {
	ctx, cancel := context.WithTimeoutCause(ctx, recoveryLimit, errors.New("the recovery took too long"))
	defer cancel()
	r := &s.recovered
	done := s.progress("StartRecovery " + p.server)
	r.asked = time.Now()
	out, err := s.server.StartRecovery(ctx, &awsdrs.StartRecoveryInput{
		IsDrill:       aws.Bool(false),
		SourceServers: []types.StartRecoveryRequestSourceServer{{SourceServerID: &p.server}},
	})
	if err != nil {
		return fmt.Errorf("start the recovery: %w", err)
	}
	r.job = aws.ToString(out.Job.JobID)
	done("StartRecovery through the AWS SDK: job %s", r.job)

	done = s.progress("launching")
	if err := s.launched(ctx, r); err != nil {
		return err
	}
	s.measure(r)
	done("%s runs, its disk read straight from the vault", r.instance)

	done = s.progress("booting it")
	r.console = guest.NewConsole()
	var following context.Context
	following, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	go rig.Follow(following, s.ConsoleLog(r.instance), r.console)
	return s.proof(ctx, r, done)
}

// launched follows the job's log until the machine runs.
func (s *stage) launched(ctx context.Context, r *recovered) error {
	seen := 0
	for {
		if err := s.server.Ended(); err != nil {
			return err
		}
		log, err := s.server.DescribeJobLogItems(ctx, &awsdrs.DescribeJobLogItemsInput{JobID: &r.job})
		if err != nil {
			return fmt.Errorf("read the job's log: %w", err)
		}
		for _, item := range log.Items[min(seen, len(log.Items)):] {
			why := ""
			if item.EventData != nil && aws.ToString(item.EventData.RawError) != "" {
				why = " (" + aws.ToString(item.EventData.RawError) + ")"
			}
			s.say("    %s%s", strings.ToLower(strings.ReplaceAll(string(item.Event), "_", " ")), why)
		}
		seen = len(log.Items)

		jobs, err := s.server.DescribeJobs(ctx, &awsdrs.DescribeJobsInput{Filters: &types.DescribeJobsRequestFilters{JobIDs: []string{r.job}}})
		if err != nil {
			return fmt.Errorf("read the job: %w", err)
		}
		if len(jobs.Items) != 1 || len(jobs.Items[0].ParticipatingServers) != 1 {
			return fmt.Errorf("read the job: want one with one server, got %d", len(jobs.Items))
		}
		server := jobs.Items[0].ParticipatingServers[0]
		switch server.LaunchStatus {
		case types.LaunchStatusLaunched:
			r.instance = aws.ToString(server.RecoveryInstanceID)
			return s.describe(ctx, r)
		case types.LaunchStatusFailed, types.LaunchStatusTerminated:
			return fmt.Errorf("the job ended with launch status %s", server.LaunchStatus)
		}
		if err := rig.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// describe finds the point that the instance began from.
func (s *stage) describe(ctx context.Context, r *recovered) error {
	out, err := s.server.DescribeRecoveryInstances(ctx, &awsdrs.DescribeRecoveryInstancesInput{
		Filters: &types.DescribeRecoveryInstancesRequestFilters{RecoveryInstanceIDs: []string{r.instance}},
	})
	if err != nil {
		return fmt.Errorf("describe %s: %w", r.instance, err)
	}
	if len(out.Items) != 1 {
		return fmt.Errorf("describe %s: got %d instances", r.instance, len(out.Items))
	}
	instance := out.Items[0]
	stamp := aws.ToString(instance.PointInTimeSnapshotDateTime)
	if r.pointTaken, err = time.Parse(time.RFC3339, stamp); err != nil {
		return fmt.Errorf("time of the recovery point of %s: %w", r.instance, err)
	}
	points, err := s.server.DescribeRecoverySnapshots(ctx, &awsdrs.DescribeRecoverySnapshotsInput{
		SourceServerID: instance.SourceServerID, Order: types.RecoverySnapshotsOrderDesc,
	})
	if err != nil {
		return fmt.Errorf("list the recovery points: %w", err)
	}
	for _, point := range points.Items {
		if aws.ToString(point.Timestamp) == stamp {
			r.pointID = aws.ToString(point.SnapshotID)
		}
	}
	return nil
}

// The server logs the moment at which the machine's processors were let run,
// as the time since the request.
var machineStarted = regexp.MustCompile(`msg="machine started".* sinceRequest=(\S+)`)

func (s *stage) measure(r *recovered) {
	r.firstInstruction = time.Now() // at the latest
	log, err := os.ReadFile(s.server.Log)
	if err != nil {
		return
	}
	if groups := machineStarted.FindSubmatch(log); groups != nil {
		if since, err := time.ParseDuration(string(groups[1])); err == nil {
			r.firstInstruction = r.asked.Add(since)
		}
	}
}

// proof reads on the machine's own console what it found and that it works.
func (s *stage) proof(ctx context.Context, r *recovered, done func(string, ...any)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, errors.New("the recovered machine took too long to boot"))
	defer cancel()
	ctx, release := s.server.Bind(ctx) // without it the machine has no disk
	defer release()
	booted, err := r.console.Wait(ctx, 0, guest.Booted)
	if err != nil {
		return fmt.Errorf("boot the recovered machine: %w\n%s", err, r.console.Tail(10))
	}
	done("%s has booted", booted.Groups[1])
	done = s.progress("it checks its orders")
	found, err := r.console.Wait(ctx, booted.Next, guest.OrdersFound)
	if err != nil {
		return fmt.Errorf("check the orders on the recovered machine: %w\n%s", err, r.console.Tail(10))
	}
	r.checked = found.At
	if r.ledger, err = guest.ParseLedger(found); err != nil {
		return err
	}
	running, err := r.console.Wait(ctx, found.Next, guest.WorkloadRunning)
	if err != nil {
		return fmt.Errorf("take new orders on the recovered machine: %w\n%s", err, r.console.Tail(10))
	}
	r.running = running.At
	done("its console says: %s", s.bold(found.Text))
	s.say("and it takes new orders, from number %d on", r.ledger.Last+1)
	return nil
}

// terminate ends the machine and frees what it held, as far as the demo got. The
// console stays readable: its file goes with the machine.
func (r *recovered) terminate(ctx context.Context, s *stage) error {
	var kept error
	if r.stop != nil {
		r.stop()
		kept = os.WriteFile(s.Path("recovered-console.log"), []byte(r.console.Tail(math.MaxInt)), 0o644)
	}
	if s.server == nil || r.asked.IsZero() {
		return kept
	}
	if s.server.Ended() != nil {
		return kept
	}
	return errors.Join(kept, r.terminateAll(ctx, s))
}

func (r *recovered) terminateAll(ctx context.Context, s *stage) error {
	// The job may not have told us of an instance yet, or not of this one.
	out, err := s.server.DescribeRecoveryInstances(ctx, &awsdrs.DescribeRecoveryInstancesInput{})
	if err != nil {
		return fmt.Errorf("look for machines to terminate: %w", err)
	}
	var ids []string
	for _, instance := range out.Items {
		ids = append(ids, aws.ToString(instance.RecoveryInstanceID))
	}
	if len(ids) == 0 {
		return nil
	}
	done := s.progress("terminating " + strings.Join(ids, ", "))
	ended, err := s.server.TerminateRecoveryInstances(ctx, &awsdrs.TerminateRecoveryInstancesInput{RecoveryInstanceIDs: ids})
	for conflict := new(types.ConflictException); errors.As(err, &conflict); { // the launch is still under way
		if pauseErr := rig.Pause(ctx, 200*time.Millisecond); pauseErr != nil {
			break
		}
		ended, err = s.server.TerminateRecoveryInstances(ctx, &awsdrs.TerminateRecoveryInstancesInput{RecoveryInstanceIDs: ids})
	}
	if err != nil {
		return fmt.Errorf("terminate %s: %w", strings.Join(ids, ", "), err)
	}
	for job := aws.ToString(ended.Job.JobID); ; {
		jobs, err := s.server.DescribeJobs(ctx, &awsdrs.DescribeJobsInput{Filters: &types.DescribeJobsRequestFilters{JobIDs: []string{job}}})
		if err != nil {
			return fmt.Errorf("terminate %s: %w", strings.Join(ids, ", "), err)
		}
		if len(jobs.Items) == 1 && jobs.Items[0].Status == types.JobStatusCompleted {
			done("machines, server, agent and disks are cleaned up")
			return nil
		}
		if err := rig.Pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("terminate %s: %w", strings.Join(ids, ", "), err)
		}
	}
}
