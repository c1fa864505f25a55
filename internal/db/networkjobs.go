package db

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type jobNetworkRow struct {
	bun.BaseModel `bun:"table:job_networks"`

	Job           string `bun:",pk"`
	Ordinal       int64  `bun:",pk"`
	SourceNetwork string
	Stack         string
	New           bool
	Status        string
}

func (tx Tx) insertNetworks(ctx context.Context, job drs.Job) error {
	var rows []jobNetworkRow
	for i, n := range job.Networks {
		rows = append(rows, jobNetworkRow{
			Job: string(job.ID), Ordinal: int64(i), SourceNetwork: string(n.SourceNetwork), Stack: n.Stack, New: n.New, Status: string(n.Status),
		})
	}
	if len(rows) == 0 {
		return nil
	}
	if _, err := tx.NewInsert().Model(&rows).Exec(ctx); err != nil {
		return fmt.Errorf("insert the networks of job %s: %w", job.ID, err)
	}
	return nil
}

// networksOf reads the networks of those jobs that have some.
func networksOf(ctx context.Context, db bun.IDB, jobs []jobRow) (map[string][]drs.ParticipatingNetwork, error) {
	var ids []string
	for _, j := range jobs {
		if strings.HasSuffix(j.Initiated, "_NETWORK_RECOVERY") {
			ids = append(ids, j.ID)
		}
	}
	of := map[string][]drs.ParticipatingNetwork{}
	if len(ids) == 0 {
		return of, nil
	}
	var rows []jobNetworkRow
	if err := db.NewSelect().Model(&rows).Where("job IN (?)", bun.List(ids)).Order("job", "ordinal").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the networks of jobs: %w", err)
	}
	for _, r := range rows {
		of[r.Job] = append(of[r.Job], drs.ParticipatingNetwork{
			SourceNetwork: drs.SourceNetworkID(r.SourceNetwork), Stack: r.Stack, New: r.New, Status: drs.LaunchStatus(r.Status),
		})
	}
	return of, nil
}

// NetworkBusy returns the running job that has the network, or nothing.
func (tx Tx) NetworkBusy(ctx context.Context, id drs.SourceNetworkID) (drs.JobID, error) {
	var job drs.JobID
	err := tx.NewRaw("SELECT n.job FROM job_networks n JOIN jobs j ON j.id = n.job WHERE n.source_network = ? AND j.status <> ? LIMIT 1",
		id, string(drs.JobCompleted)).Scan(ctx, &job)
	if err != nil && !errors.Is(absent(err), ErrAbsent) {
		return "", fmt.Errorf("look up running jobs of %s: %w", id, err)
	}
	return job, nil
}

// SetNetworkStatus moves one network of a job on along its transition table.
func (tx Tx) SetNetworkStatus(ctx context.Context, id drs.JobID, network drs.SourceNetworkID, to drs.LaunchStatus) error {
	var row jobNetworkRow
	if err := tx.NewSelect().Model(&row).Where("job = ? AND source_network = ?", id, network).Scan(ctx); err != nil {
		return fmt.Errorf("look up %s in job %s: %w", network, id, absent(err))
	}
	next, err := drs.LaunchStatus(row.Status).Next(to)
	if err != nil {
		return fmt.Errorf("%s in job %s: %w", network, id, err)
	}
	row.Status = string(next)
	if _, err := tx.NewUpdate().Model(&row).Column("status").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("set status of %s in job %s: %w", network, id, err)
	}
	return nil
}

type stackRow struct {
	bun.BaseModel `bun:"table:network_stacks"`

	Account string `bun:",pk"`
	Region  string `bun:",pk"`
	Name    string `bun:",pk"`
	VPC     string `bun:"vpc"`
	Network string
	Created stamp
}

// NetworkStack returns a machine network by its name, or ErrAbsent.
func (tx Tx) NetworkStack(ctx context.Context, account drs.Account, name string) (drs.NetworkStack, error) {
	var r stackRow
	err := tx.NewSelect().Model(&r).Where("account = ? AND region = ? AND name = ?", account.ID, account.Region, name).Scan(ctx)
	if err != nil {
		return drs.NetworkStack{}, fmt.Errorf("look up stack %s: %w", name, absent(err))
	}
	return drs.NetworkStack{Account: account, Name: r.Name, VPC: r.VPC, Network: r.Network, Created: r.Created.Time()}, nil
}

// InsertNetworkStack keeps a machine network; one of that name stays as it is.
func (tx Tx) InsertNetworkStack(ctx context.Context, s drs.NetworkStack) error {
	row := stackRow{Account: s.Account.ID, Region: s.Account.Region, Name: s.Name, VPC: s.VPC, Network: s.Network, Created: stampOf(s.Created)}
	if _, err := tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx); err != nil {
		return fmt.Errorf("insert stack %s: %w", s.Name, err)
	}
	return nil
}

// SetLaunchNetwork makes recovery instances of the servers go to a machine
// network from the next launch on.
func (tx Tx) SetLaunchNetwork(ctx context.Context, network string, servers ...drs.SourceServerID) error {
	if len(servers) == 0 {
		return nil
	}
	_, err := tx.NewRaw("UPDATE source_servers SET launch_configuration = json_set(launch_configuration, '$.network', ?) WHERE id IN (?)",
		network, bun.List(servers)).Exec(ctx)
	if err != nil {
		return fmt.Errorf("set the network of %d servers: %w", len(servers), err)
	}
	return nil
}
