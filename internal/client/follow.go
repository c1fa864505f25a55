package client

import (
	"context"
	"errors"
	"time"
)

// Watcher is told what happens to a job that is followed; all calls come from
// one goroutine.
type Watcher interface {
	// Line is called once for each line of the log, in order.
	Line(LogLine)
	// Progress is called at each look at the job.
	Progress(Job)
	// Away is called when a look failed because the server did not answer, Back
	// when it answers again.
	Away(error)
	Back()
}

// Follow watches a job until it has completed, and returns it as Job does. A job
// goes on whatever becomes of the server's process, so a server that does not
// answer is asked again for some minutes before its *UnreachableError is
// returned. When ctx ends, only the watching ends.
func (c *Client) Follow(ctx context.Context, id string, w Watcher) (Job, error) {
	var (
		names map[string]string
		told  int       // lines of the log
		since time.Time // since when the server is away; zero: it is not
		pause = c.poll / 8
	)
	for {
		job, err := c.look(ctx, id, &names)
		var unreachable *UnreachableError
		switch {
		case ctx.Err() != nil:
			return Job{}, context.Cause(ctx)
		case errors.As(err, &unreachable):
			if since.IsZero() {
				since = c.now()
				w.Away(err)
			} else if c.now().Sub(since) > c.patience {
				return Job{}, err
			}
		case err != nil:
			return Job{}, err
		default:
			if !since.IsZero() {
				since = time.Time{}
				w.Back()
			}
			for _, line := range job.Log[min(told, len(job.Log)):] {
				w.Line(line)
			}
			told = max(told, len(job.Log))
			w.Progress(job)
			if job.Done() {
				return job, nil
			}
		}
		select {
		case <-ctx.Done():
			return Job{}, context.Cause(ctx)
		case <-time.After(pause): // many jobs are done in a second, some take hours
			pause = min(pause*5/4, c.poll)
		}
	}
}

// look is one look at the job; the names of its servers are looked up once.
func (c *Client) look(ctx context.Context, id string, names *map[string]string) (job Job, err error) {
	if *names == nil {
		if *names, err = c.hostnames(ctx); err != nil {
			return Job{}, err
		}
	}
	if job, err = c.jobWithLog(ctx, id, *names); err != nil || !job.Done() {
		return job, err
	}
	return job, c.addInstances(ctx, &job)
}
