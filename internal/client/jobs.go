package client

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	drsapi "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
)

// Kinds of jobs, as people call them.
const (
	KindDrill     = "drill"
	KindRecovery  = "recovery"
	KindTerminate = "terminate"
)

// Job is a drill, a recovery or a termination, and how far it is.
type Job struct {
	ID      string      `json:"id"`
	Kind    string      `json:"kind"`
	Status  string      `json:"status"` // PENDING, STARTED or COMPLETED
	Started *time.Time  `json:"started,omitempty"`
	Ended   *time.Time  `json:"ended,omitempty"`
	Servers []JobServer `json:"servers"`
	// Log is there when one job is asked for.
	Log []LogLine `json:"log,omitempty"`
}

// JobServer is one server's part in a job.
type JobServer struct {
	Hostname string `json:"hostname,omitempty"`
	Server   string `json:"server"`
	// Status is PENDING, IN_PROGRESS, LAUNCHED, FAILED or TERMINATED.
	Status        string     `json:"status"`
	Instance      string     `json:"instance,omitempty"`
	InstanceState string     `json:"instanceState,omitempty"`
	PointTaken    *time.Time `json:"pointTaken,omitempty"`
	// Error says why the server failed.
	Error string `json:"error,omitempty"`
}

// LogLine is one event of a job.
type LogLine struct {
	Time     time.Time `json:"time"`
	Event    string    `json:"event"` // as the DRS API names it
	Server   string    `json:"server,omitempty"`
	Hostname string    `json:"hostname,omitempty"`
	Instance string    `json:"instance,omitempty"`
	Error    string    `json:"error,omitempty"`
	Note     string    `json:"note,omitempty"`
}

// Done tells whether the job has come to its end, well or not.
func (j Job) Done() bool { return j.Status == string(types.JobStatusCompleted) }

// Failed counts the servers that the job could not do.
func (j Job) Failed() (n int) {
	for _, s := range j.Servers {
		if s.Status == string(types.LaunchStatusFailed) {
			n++
		}
	}
	return n
}

// Jobs lists the jobs of the account, newest first, at most limit if that is
// not 0.
func (c *Client) Jobs(ctx context.Context, limit int) ([]Job, error) {
	jobs, err := c.jobs(ctx, nil, limit)
	if err != nil || len(jobs) == 0 {
		return jobs, err
	}
	return jobs, c.addHostnames(ctx, jobs)
}

func (c *Client) jobs(ctx context.Context, filters *types.DescribeJobsRequestFilters, limit int) ([]Job, error) {
	jobs := []Job{}
	in := &drsapi.DescribeJobsInput{Filters: filters}
	if limit > 0 {
		in.MaxResults = aws.Int32(int32(min(limit, maxPage)))
	}
	pages := drsapi.NewDescribeJobsPaginator(c.api, in)
	for pages.HasMorePages() && (limit == 0 || len(jobs) < limit) {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, c.explain(err)
		}
		for _, j := range page.Items {
			jobs = append(jobs, jobOf(j))
		}
	}
	if limit > 0 && len(jobs) > limit {
		jobs = jobs[:limit]
	}
	return jobs, nil
}

func jobOf(j types.Job) Job {
	out := Job{
		ID: deref(j.JobID), Status: string(j.Status), Kind: KindRecovery,
		Started: timeOf(j.CreationDateTime), Ended: timeOf(j.EndDateTime), Servers: []JobServer{},
	}
	switch {
	case j.InitiatedBy == types.InitiatedByStartDrill:
		out.Kind = KindDrill
	case j.Type == types.JobTypeTerminate:
		out.Kind = KindTerminate
	case j.InitiatedBy != types.InitiatedByStartRecovery:
		out.Kind = strings.ToLower(string(j.InitiatedBy))
	}
	for _, s := range j.ParticipatingServers {
		out.Servers = append(out.Servers, JobServer{
			Server: deref(s.SourceServerID), Instance: deref(s.RecoveryInstanceID), Status: string(s.LaunchStatus),
		})
	}
	return out
}

// addHostnames tells jobs what their servers are called.
func (c *Client) addHostnames(ctx context.Context, jobs []Job) error {
	names, err := c.hostnames(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		for n := range j.Servers {
			j.Servers[n].Hostname = names[j.Servers[n].Server]
		}
	}
	return nil
}

// hostnames tells what servers are called. A caller who may not know is told none, and
// sees IDs instead.
func (c *Client) hostnames(ctx context.Context) (map[string]string, error) {
	servers, err := c.Servers(ctx)
	var refusal *Refusal
	if errors.As(err, &refusal) && refusal.Code == accessDenied {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, s := range servers {
		names[s.ID] = s.Hostname
	}
	return names, nil
}

// FindJob returns the ID of the job that name means: an ID, the first part of
// one, or nothing for the newest.
func (c *Client) FindJob(ctx context.Context, name string) (string, error) {
	limit := 0
	if name == "" {
		limit = 1
	}
	all, err := c.jobs(ctx, nil, limit)
	switch {
	case err != nil:
		return "", err
	case name == "" && len(all) == 0:
		return "", refuse("there are no jobs yet; `lifeboat recover SERVER --drill` starts one")
	case name == "":
		return all[0].ID, nil
	}
	found, err := pick([]string{name}, all, "job", "jobs", "drsjob-", func(j Job) called {
		return called{id: j.ID, label: j.Kind}
	})
	if err != nil {
		return "", err
	}
	return found[0].ID, nil
}

// Job returns one job with its log and what became of its servers; *Refusal
// when there is none of this ID.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	names, err := c.hostnames(ctx)
	if err != nil {
		return Job{}, err
	}
	job, err := c.jobWithLog(ctx, id, names)
	if err != nil {
		return Job{}, err
	}
	return job, c.addInstances(ctx, &job)
}

func (c *Client) jobWithLog(ctx context.Context, id string, names map[string]string) (Job, error) {
	// The log is read first: what the job says of itself is then never older than
	// its log.
	log, err := c.log(ctx, id, names)
	if err != nil {
		return Job{}, err
	}
	jobs, err := c.jobs(ctx, &types.DescribeJobsRequestFilters{JobIDs: []string{id}}, 0)
	if err != nil {
		return Job{}, err
	}
	if len(jobs) == 0 {
		return Job{}, refuse("there is no job %s; `lifeboat jobs` lists those there are", id)
	}
	job := jobs[0]
	if job.Done() { // its end may have come between the two
		if log, err = c.log(ctx, id, names); err != nil {
			return Job{}, err
		}
	}
	job.Log = log
	for n := range job.Servers {
		s := &job.Servers[n]
		s.Hostname = names[s.Server]
		if s.Status == string(types.LaunchStatusFailed) {
			s.Error = lastError(log, *s)
		}
	}
	return job, nil
}

// lastError is the newest error that the log has of a server, or of its
// instance where a job holds several of one server.
func lastError(log []LogLine, s JobServer) (text string) {
	for _, line := range log {
		if line.Server == s.Server && line.Error != "" && (line.Instance == "" || s.Instance == "" || line.Instance == s.Instance) {
			text = line.Error
		}
	}
	return text
}

func (c *Client) log(ctx context.Context, job string, names map[string]string) ([]LogLine, error) {
	lines := []LogLine{}
	in := &drsapi.DescribeJobLogItemsInput{JobID: &job, MaxResults: aws.Int32(maxPage)}
	for {
		var reply []byte
		page, err := c.api.DescribeJobLogItems(ctx, in, keepReply(&reply))
		if err != nil {
			return nil, c.explain(err)
		}
		extra := extras[struct{ EventData struct{ Note string } }](reply)
		for n, item := range page.Items {
			line := LogLine{Event: string(item.Event), Time: deref(timeOf(item.LogDateTime))}
			if data := item.EventData; data != nil {
				line.Server, line.Instance, line.Error = deref(data.SourceServerID), deref(data.TargetInstanceID), deref(data.RawError)
				line.Hostname = names[line.Server]
			}
			if n < len(extra) {
				line.Note = extra[n].EventData.Note
			}
			lines = append(lines, line)
		}
		if deref(page.NextToken) == "" {
			return lines, nil
		}
		in.NextToken = page.NextToken
	}
}

// addInstances tells what the job's machines are now and which moment they came
// from.
func (c *Client) addInstances(ctx context.Context, job *Job) error {
	byID := map[string]*JobServer{}
	var ids []string
	for n := range job.Servers {
		if s := &job.Servers[n]; s.Instance != "" {
			byID[s.Instance] = s
			ids = append(ids, s.Instance)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	pages := drsapi.NewDescribeRecoveryInstancesPaginator(c.api, &drsapi.DescribeRecoveryInstancesInput{
		Filters: &types.DescribeRecoveryInstancesRequestFilters{RecoveryInstanceIDs: ids},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return c.explain(err)
		}
		for _, i := range page.Items {
			if s := byID[deref(i.RecoveryInstanceID)]; s != nil {
				s.InstanceState, s.PointTaken = string(i.Ec2InstanceState), timeOf(i.PointInTimeSnapshotDateTime)
			}
		}
	}
	return nil
}
