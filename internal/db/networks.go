package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type networkRow struct {
	bun.BaseModel `bun:"table:source_networks"`

	ID            string `bun:",pk"`
	Account       string
	Region        string
	VPC           string `bun:"vpc"`
	OriginAccount string
	OriginRegion  string
	Status        string
	StatusDetails string
	Stack         string
	LaunchedVPC   string `bun:"launched_vpc"`
	Last          document[drs.NetworkRecovery]
	Configuration document[drs.NetworkConfiguration]
	Created       stamp
	Tags          document[drs.Tags]
}

func (r networkRow) resource() drs.SourceNetwork {
	return drs.SourceNetwork{
		ID: drs.SourceNetworkID(r.ID), Account: drs.Account{ID: r.Account, Region: r.Region},
		Origin: drs.Account{ID: r.OriginAccount, Region: r.OriginRegion}, VPC: r.VPC,
		Status: drs.NetworkStatus(r.Status), StatusDetails: r.StatusDetails, Created: r.Created.Time(), Tags: r.Tags.V,
		Configuration: r.Configuration.V, Stack: r.Stack, LaunchedVPC: r.LaunchedVPC, Last: r.Last.V,
	}
}

func networkRowOf(n drs.SourceNetwork) networkRow {
	return networkRow{
		ID: string(n.ID), Account: n.Account.ID, Region: n.Account.Region, VPC: n.VPC,
		OriginAccount: n.Origin.ID, OriginRegion: n.Origin.Region, Status: string(n.Status), StatusDetails: n.StatusDetails,
		Stack: n.Stack, LaunchedVPC: n.LaunchedVPC, Last: document[drs.NetworkRecovery]{n.Last},
		Configuration: document[drs.NetworkConfiguration]{n.Configuration}, Created: stampOf(n.Created), Tags: document[drs.Tags]{n.Tags},
	}
}

// networkColumns are all but the template, which only its reader wants.
var networkColumns = []string{
	"id", "account", "region", "vpc", "origin_account", "origin_region", "status", "status_details",
	"stack", "launched_vpc", "last", "configuration", "created", "tags",
}

// SourceNetwork returns one network of the account, or ErrAbsent.
func (tx Tx) SourceNetwork(ctx context.Context, account drs.Account, id drs.SourceNetworkID) (drs.SourceNetwork, error) {
	var row networkRow
	err := tx.NewSelect().Model(&row).Column(networkColumns...).
		Where("id = ? AND account = ? AND region = ?", id, account.ID, account.Region).Scan(ctx)
	if err != nil {
		return drs.SourceNetwork{}, fmt.Errorf("look up source network %s: %w", id, absent(err))
	}
	return row.resource(), nil
}

// SourceNetworkFilter narrows a listing; empty members do not.
type SourceNetworkFilter struct {
	IDs    []drs.SourceNetworkID
	VPC    string
	Origin drs.Account // each member by itself
}

// SourceNetworks lists the networks of an account, oldest first.
func (d *DB) SourceNetworks(ctx context.Context, account drs.Account, f SourceNetworkFilter, page Page) ([]drs.SourceNetwork, string, error) {
	var rows []networkRow
	q := d.read.NewSelect().Model(&rows).Column(networkColumns...).Where("account = ? AND region = ?", account.ID, account.Region)
	if len(f.IDs) > 0 {
		q = q.Where("id IN (?)", bun.List(f.IDs))
	}
	if f.VPC != "" {
		q = q.Where("vpc = ?", f.VPC)
	}
	if f.Origin.ID != "" {
		q = q.Where("origin_account = ?", f.Origin.ID)
	}
	if f.Origin.Region != "" {
		q = q.Where("origin_region = ?", f.Origin.Region)
	}
	q, err := page.by(q, "created", "id", false)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list source networks: %w", err)
	}
	rows, next := cut(page, rows, func(r networkRow) cursor { return cursor{int64(r.Created), r.ID} })
	return convert(rows, networkRow.resource), next, nil
}

// HaveNetwork counts the account's source networks, and tells whether one of them
// is of that VPC.
func (tx Tx) HaveNetwork(ctx context.Context, n drs.SourceNetwork) (count int, same bool, err error) {
	all := tx.NewSelect().Model((*networkRow)(nil)).Where("account = ? AND region = ?", n.Account.ID, n.Account.Region)
	number, err := all.Count(ctx)
	if err != nil {
		return 0, false, fmt.Errorf("count source networks: %w", err)
	}
	same, err = tx.NewSelect().Model((*networkRow)(nil)).
		Where("account = ? AND region = ? AND vpc = ?", n.Account.ID, n.Account.Region, n.VPC).
		Where("origin_account = ? AND origin_region = ?", n.Origin.ID, n.Origin.Region).Exists(ctx)
	if err != nil {
		return 0, false, fmt.Errorf("look up source network of %s: %w", n.VPC, err)
	}
	return int(number), same, nil
}

// InsertSourceNetwork adds a network.
func (tx Tx) InsertSourceNetwork(ctx context.Context, n drs.SourceNetwork) error {
	row := networkRowOf(n)
	if _, err := tx.NewInsert().Model(&row).Column(networkColumns...).Exec(ctx); err != nil {
		return fmt.Errorf("insert source network %s: %w", n.ID, err)
	}
	return nil
}

// UpdateSourceNetwork writes all of a network that changes, but its tags.
func (tx Tx) UpdateSourceNetwork(ctx context.Context, n drs.SourceNetwork) error {
	row := networkRowOf(n)
	_, err := tx.NewUpdate().Model(&row).Column("status", "status_details", "stack", "launched_vpc", "last", "configuration").WherePK().Exec(ctx)
	if err != nil {
		return fmt.Errorf("update source network %s: %w", n.ID, err)
	}
	return nil
}

// DeleteSourceNetwork removes a network; its stack stays.
func (tx Tx) DeleteSourceNetwork(ctx context.Context, id drs.SourceNetworkID) error {
	if _, err := tx.NewDelete().Model((*networkRow)(nil)).Where("id = ?", id).Exec(ctx); err != nil {
		return fmt.Errorf("delete source network %s: %w", id, err)
	}
	return nil
}

// SetNetworkTemplate keeps the exported template of a network.
func (tx Tx) SetNetworkTemplate(ctx context.Context, id drs.SourceNetworkID, template []byte) error {
	_, err := tx.NewUpdate().Model((*networkRow)(nil)).Set("template = ?", string(template)).Where("id = ?", id).Exec(ctx)
	if err != nil {
		return fmt.Errorf("keep the template of %s: %w", id, err)
	}
	return nil
}

// NetworkTemplate returns the exported template of a network; ErrAbsent when the
// account has no such network, or it was never exported.
func (d *DB) NetworkTemplate(ctx context.Context, account drs.Account, id drs.SourceNetworkID) ([]byte, error) {
	var text string
	err := d.read.NewRaw("SELECT template FROM source_networks WHERE id = ? AND account = ? AND region = ? AND template <> ''",
		id, account.ID, account.Region).Scan(ctx, &text)
	if err != nil {
		return nil, fmt.Errorf("read the template of %s: %w", id, absent(err))
	}
	return []byte(text), nil
}

// NetworkMembers lists the account's source servers whose tag names the network,
// by its ID or its VPC's.
func (tx Tx) NetworkMembers(ctx context.Context, n drs.SourceNetwork) ([]drs.SourceServer, error) {
	var rows []serverRow
	err := tx.NewSelect().Model(&rows).Where("account = ? AND region = ?", n.Account.ID, n.Account.Region).
		Where("tags LIKE ?", "%"+drs.SourceNetworkTag+"%"). // cheaper than reading all as JSON
		Where("json_extract(tags, ?) IN (?, ?)", `$."`+drs.SourceNetworkTag+`"`, string(n.ID), n.VPC).
		Order("added", "id").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the servers of %s: %w", n.ID, err)
	}
	return convert(rows, serverRow.resource), nil
}
