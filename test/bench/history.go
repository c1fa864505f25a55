package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// What a large account has gathered.
const (
	manyServers  = 4_000
	manyJobs     = 100_000
	linesPerJob  = 10
	serversOfJob = 2
	ask          = 200 // requests per second
	askFor       = 20 * time.Second
)

// historyRow asks a server whose tables are full.
func historyRow(ctx context.Context, b *bench) (measures []measurement, err error) {
	dir, remove, err := b.place("history")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	at := filepath.Join(dir, "site")
	if err := b.prepared(ctx, "history", at, func(at string) error { return b.fillSite(ctx, at) }); err != nil {
		return nil, err
	}
	s, err := b.newSite(ctx, at)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	account, err := s.accountOf(ctx)
	if err != nil {
		return nil, err
	}
	tables := filepath.Join(s.Data(), "lifeboat.db")
	caller, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}

	note := fmt.Sprintf("%d source servers, %d jobs, %d lines of job logs", manyServers, manyJobs, manyJobs*linesPerJob)
	for _, op := range []struct{ name, path, body string }{
		{"DescribeSourceServers, a page of 200", "/DescribeSourceServers", `{"maxResults":200}`},
		{"DescribeJobs, a page of 200", "/DescribeJobs", `{"maxResults":200}`},
	} {
		server, client := processorTime(s.server.PID()), processorTime(os.Getpid())
		took, err := caller.pace(ctx, ask, askFor, op.path, op.body)
		if err != nil {
			return measures, fmt.Errorf("%s: %w", op.name, err)
		}
		each := func(pid int, before time.Duration) float64 {
			return 1000 * (processorTime(pid) - before).Seconds() / float64(len(took))
		}
		measures = append(measures, measurement{
			Name: op.name + fmt.Sprintf(", %d/s: p99", ask), Unit: "ms", Ours: percentile(took, 99), Reach: 20,
			Note: fmt.Sprintf("%s; of a processor, a request takes %.2f ms in the server and %.2f in the client, on the same machine, which signs it and throws the reply away",
				note, each(s.server.PID(), server), each(os.Getpid(), client)),
		})
	}
	// The server made its catalogue of points equal to its empty vault, so what can
	// be recovered is told to its tables now; that no machine comes of it is known.
	body, err := makeReady(ctx, tables, account)
	if err != nil {
		return measures, err
	}
	took, err := caller.time(ctx, "/StartRecovery", body)
	if err != nil {
		return measures, fmt.Errorf("StartRecovery: %w", err)
	}
	return append(measures,
		measurement{Name: "StartRecovery of 200 servers beside that history: answered", Unit: "ms", Ours: took, Reach: 100},
		measurement{Name: "memory of the server with that history", Unit: "MiB", Ours: residentMiB(s.server.PID()), Reach: 300},
	), nil
}
