package client

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	drsapi "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
)

// Instance is a machine that was launched from a recovery point.
type Instance struct {
	Hostname   string     `json:"hostname"`
	ID         string     `json:"id"`
	Server     string     `json:"server"`
	State      string     `json:"state"` // of the machine, as the DRS API names it
	Drill      bool       `json:"drill"`
	PointTaken *time.Time `json:"pointTaken,omitempty"`
	Launched   *time.Time `json:"launched,omitempty"` // when its job began
	Job        string     `json:"job,omitempty"`
	CPUs       int64      `json:"cpus"`
	RAMBytes   int64      `json:"ramBytes"`
	// Protected instances stay when their server is launched again.
	Protected bool `json:"protected"`
}

// protectionTag keeps an instance when its server is launched again, unless its
// value is "false".
const protectionTag = "lifeboat:termination-protection"

// Instances lists the machines of the account by hostname, newest first within
// one.
func (c *Client) Instances(ctx context.Context) ([]Instance, error) {
	instances := []Instance{}
	pages := drsapi.NewDescribeRecoveryInstancesPaginator(c.api, &drsapi.DescribeRecoveryInstancesInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, c.explain(err)
		}
		for _, i := range page.Items {
			instances = append(instances, instanceOf(i))
		}
	}
	if err := c.addLaunchTimes(ctx, instances); err != nil {
		return nil, err
	}
	slices.SortStableFunc(instances, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a.Hostname), strings.ToLower(b.Hostname)),
			deref(b.Launched).Compare(deref(a.Launched)), cmp.Compare(a.ID, b.ID))
	})
	return instances, nil
}

func instanceOf(i types.RecoveryInstance) Instance {
	out := Instance{
		ID: deref(i.RecoveryInstanceID), Server: deref(i.SourceServerID), State: string(i.Ec2InstanceState),
		Drill: deref(i.IsDrill), PointTaken: timeOf(i.PointInTimeSnapshotDateTime), Job: deref(i.JobID),
	}
	if p := i.RecoveryInstanceProperties; p != nil {
		if p.IdentificationHints != nil {
			out.Hostname = deref(p.IdentificationHints.Hostname)
		}
		for _, cpu := range p.Cpus {
			out.CPUs += cpu.Cores
		}
		out.RAMBytes = p.RamBytes
	}
	if out.Hostname == "" { // not known until it has booted
		out.Hostname = i.Tags["Name"]
	}
	value, tagged := i.Tags[protectionTag]
	out.Protected = tagged && value != "false"
	return out
}

// addLaunchTimes takes the times from the jobs: instances do not carry them.
func (c *Client) addLaunchTimes(ctx context.Context, instances []Instance) error {
	created := map[string]*time.Time{}
	for _, i := range instances {
		created[i.Job] = nil
	}
	delete(created, "")
	ids := make([]string, 0, len(created))
	for id := range created {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for some := range slices.Chunk(ids, 200) {
		jobs, err := c.jobs(ctx, &types.DescribeJobsRequestFilters{JobIDs: some}, 0)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			created[j.ID] = j.Started
		}
	}
	for n := range instances {
		instances[n].Launched = created[instances[n].Job]
	}
	return nil
}

// FindInstances returns the instances that the names mean, each once: IDs, first
// parts of IDs, or hostnames. *Refusal when a name means none or several.
func (c *Client) FindInstances(ctx context.Context, names []string) ([]Instance, error) {
	all, err := c.Instances(ctx)
	if err != nil {
		return nil, err
	}
	return pick(names, all, "recovery instance", "instances", "i-", func(i Instance) called {
		return called{i.ID, i.Hostname + ", " + strings.ToLower(i.State), []string{i.Hostname}}
	})
}
