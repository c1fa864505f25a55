package client

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	drsapi "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
)

// Order is what a person asks for; at most one of Point and At is set.
type Order struct {
	Servers []string // names, as FindServers takes them
	Drill   bool
	Point   string     // for one server: as FindPoint takes it
	At      *time.Time // each server's newest consistent point at or before it
}

// Plan is what a recovery will do, before it does it.
type Plan struct {
	Drill   bool            `json:"drill"`
	Servers []PlannedServer `json:"servers"`
}

// PlannedServer is one server's part of a plan.
type PlannedServer struct {
	Hostname string `json:"hostname"`
	Server   string `json:"server"`
	// Point is where it starts from; nil: a point of this very moment if the agent
	// can still take one, else the newest there is.
	Point *Point `json:"point,omitempty"`
	// Removes are the instances of earlier launches, which this one replaces.
	Removes []Instance `json:"removes"`
}

// Removes are all instances that the plan removes.
func (p Plan) Removes() (all []Instance) {
	for _, s := range p.Servers {
		all = append(all, s.Removes...)
	}
	return all
}

// Plan finds out what the order means; *Refusal when it cannot be carried out.
func (c *Client) Plan(ctx context.Context, o Order) (Plan, error) {
	servers, err := c.FindServers(ctx, o.Servers)
	if err != nil {
		return Plan{}, err
	}
	instances, err := c.Instances(ctx)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Drill: o.Drill, Servers: []PlannedServer{}}
	for _, s := range servers {
		planned := PlannedServer{Hostname: s.Hostname, Server: s.ID, Removes: []Instance{}}
		for _, i := range instances {
			if i.Server == s.ID && !i.Protected {
				planned.Removes = append(planned.Removes, i)
			}
		}
		var point Point
		switch {
		case o.Point != "":
			point, err = c.FindPoint(ctx, s, o.Point)
		case o.At != nil:
			point, err = c.NewestPoint(ctx, s, o.At)
		default:
			plan.Servers = append(plan.Servers, planned)
			continue
		}
		if err != nil {
			return Plan{}, err
		}
		planned.Point = &point
		plan.Servers = append(plan.Servers, planned)
	}
	return plan, nil
}

// Start carries the plan out and returns the new job, which is durable.
func (c *Client) Start(ctx context.Context, p Plan) (Job, error) {
	in := &drsapi.StartRecoveryInput{IsDrill: aws.Bool(p.Drill)}
	names := map[string]string{}
	for _, s := range p.Servers {
		one := types.StartRecoveryRequestSourceServer{SourceServerID: aws.String(s.Server)}
		if s.Point != nil {
			one.RecoverySnapshotID = aws.String(s.Point.ID)
		}
		in.SourceServers = append(in.SourceServers, one)
		names[s.Server] = s.Hostname
	}
	// A request whose answer is lost may have started the job: sent again, it
	// would be refused as a conflict with itself.
	out, err := c.api.StartRecovery(ctx, in, once)
	if err != nil {
		return Job{}, c.unsure(err)
	}
	return startedJob(out.Job, names)
}

// Terminate removes the instances for good and returns the job that does it,
// which is durable.
func (c *Client) Terminate(ctx context.Context, instances []Instance) (Job, error) {
	in := &drsapi.TerminateRecoveryInstancesInput{}
	names := map[string]string{}
	for _, i := range instances {
		in.RecoveryInstanceIDs = append(in.RecoveryInstanceIDs, i.ID)
		names[i.Server] = i.Hostname
	}
	out, err := c.api.TerminateRecoveryInstances(ctx, in, once)
	if err != nil {
		return Job{}, c.unsure(err)
	}
	return startedJob(out.Job, names)
}

func once(o *drsapi.Options) { o.RetryMaxAttempts = 1 }

// unsure explains the error of a request that may have been carried out.
func (c *Client) unsure(err error) error {
	err = c.explain(err)
	var unreachable *UnreachableError
	if errors.As(err, &unreachable) {
		unreachable.Next += ". Whether the job was started is not known: `lifeboat jobs` tells"
	}
	return err
}

func startedJob(j *types.Job, names map[string]string) (Job, error) {
	if j == nil || deref(j.JobID) == "" {
		return Job{}, errors.New("the server's answer names no job; `lifeboat jobs` tells whether one was started")
	}
	job := jobOf(*j)
	for n := range job.Servers {
		job.Servers[n].Hostname = names[job.Servers[n].Server]
	}
	return job, nil
}
