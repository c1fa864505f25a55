package db

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

// Configuration is what people have set up and no source server's record tells: it is
// kept in the vault, so that a lost database can be made again. Jobs, executions of
// plans and deliveries of events are history and not part of it.
//
// It holds rows as they are: a column that a later version adds takes its default
// when an older configuration is restored, so a migration must not rename or drop one.
type Configuration struct {
	Tables map[string][]Row `json:"tables"`
	// Extended are the source servers that stand for one of another account: they have
	// no place of their own in the vault.
	Extended []ServerRecord `json:"extended,omitempty"`
}

// Row is one row of a table, by column.
type Row map[string]Cell

// Cell is a value of a column: int64, string, []byte, bool or nil.
type Cell struct{ V any }

// configured are the tables of a configuration, each with what orders its rows; what
// others refer to comes first.
var configured = []struct{ table, order string }{
	{"accounts", "id, region"},
	{"identities", "kind, account, name"},
	{"replication_templates", "id"},
	{"launch_templates", "id"},
	{"launch_actions", "resource, id"},
	{"recovery_plans", "id"},
	{"recovery_plan_steps", "id"},
	{"recovery_plan_servers", "step, ordinal"},
	{"source_networks", "id"},
	{"network_stacks", "account, region, name"},
	{"webhooks", "id"},
	{"agent_certificates", "source_server"},
}

// ErrNewerConfiguration: a later version wrote the configuration.
var ErrNewerConfiguration = errors.New("a newer lifeboat wrote it: run that one, or a later one")

// ConfigurationGeneration tells whether the configuration has changed since it was read.
func (d *DB) ConfigurationGeneration(ctx context.Context) (n int64, err error) {
	if err := d.read.NewRaw("SELECT n FROM configuration_generation").Scan(ctx, &n); err != nil {
		return 0, fmt.Errorf("read generation of the configuration: %w", err)
	}
	return n, nil
}

// Configuration returns all of it as of one moment, and its generation.
func (d *DB) Configuration(ctx context.Context) (c Configuration, generation int64, err error) {
	c.Tables = map[string][]Row{}
	err = d.read.RunInTx(ctx, &sql.TxOptions{ReadOnly: true}, func(ctx context.Context, tx bun.Tx) error {
		if err := tx.NewRaw("SELECT n FROM configuration_generation").Scan(ctx, &generation); err != nil {
			return err
		}
		for _, t := range configured {
			rows, err := tx.QueryContext(ctx, "SELECT * FROM "+t.table+" ORDER BY "+t.order)
			if err != nil {
				return fmt.Errorf("%s: %w", t.table, err)
			}
			if c.Tables[t.table], err = readRows(rows); err != nil {
				return fmt.Errorf("%s: %w", t.table, err)
			}
		}
		var extended []recordRow
		if err := tx.NewRaw(selectRecords+"WHERE staging_server <> '' ORDER BY id").Scan(ctx, &extended); err != nil {
			return fmt.Errorf("extended source servers: %w", err)
		}
		c.Extended = convert(extended, recordRow.record)
		return nil
	})
	if err != nil {
		return c, 0, fmt.Errorf("read the configuration: %w", err)
	}
	return c, generation, nil
}

func readRows(rows *sql.Rows) (out []Row, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		cells := make([]Cell, len(columns))
		into := make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i].V
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row := Row{}
		for i, name := range columns {
			row[name] = cells[i]
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

// RestoreConfiguration puts a configuration into tables that hold nothing of it but
// source servers and their accounts. What refers to a source server that is not there is
// left out. ErrNewerConfiguration: it has what this program does not know.
func (tx Tx) RestoreConfiguration(ctx context.Context, c Configuration) error {
	known := map[string]bool{}
	for _, t := range configured {
		known[t.table] = true
		columns, err := tx.columns(ctx, t.table)
		if err != nil {
			return fmt.Errorf("restore %s: %w", t.table, err)
		}
		for _, row := range c.Tables[t.table] {
			if err := tx.restoreRow(ctx, t.table, columns, row); err != nil {
				return fmt.Errorf("restore %s: %w", t.table, err)
			}
		}
	}
	for table := range c.Tables {
		if !known[table] {
			return fmt.Errorf("restore %s: %w", table, ErrNewerConfiguration)
		}
	}
	for _, r := range c.Extended {
		if _, err := tx.RestoreServer(ctx, r); err != nil {
			return err
		}
	}
	return tx.endWhatIsGone(ctx)
}

// endWhatIsGone ends what waited for a job: jobs do not come back.
func (tx Tx) endWhatIsGone(ctx context.Context) error {
	_, err := tx.NewRaw("UPDATE source_networks SET last = json_set(last, '$.result', ?) WHERE json_extract(last, '$.result') = ?",
		string(drs.NetworkFailed), string(drs.NetworkInProgress)).Exec(ctx)
	if err != nil {
		return fmt.Errorf("restore source_networks: %w", err)
	}
	return nil
}

func (tx Tx) columns(ctx context.Context, table string) (map[string]bool, error) {
	var names []string
	if err := tx.NewRaw("SELECT name FROM pragma_table_info(?)", table).Scan(ctx, &names); err != nil {
		return nil, err
	}
	columns := map[string]bool{}
	for _, name := range names {
		columns[name] = true
	}
	return columns, nil
}

func (tx Tx) restoreRow(ctx context.Context, table string, columns map[string]bool, row Row) error {
	names := slices.Sorted(maps.Keys(row))
	values := make([]any, len(names))
	for i, name := range names {
		if !columns[name] {
			return fmt.Errorf("column %q: %w", name, ErrNewerConfiguration)
		}
		values[i] = row[name].V
	}
	if len(names) == 0 {
		return errors.New("an empty row")
	}
	if table == "agent_certificates" {
		there, err := tx.NewSelect().Model((*serverRow)(nil)).Where("id = ?", row["source_server"].V).Exists(ctx)
		if err != nil || !there {
			return err
		}
	}
	query := "INSERT INTO " + table + " (" + strings.Join(names, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(names)-1) + ")" //nolint:gosec // the names are the table's own
	_, err := tx.Tx.Tx.ExecContext(ctx, query, values...)
	return err
}

// cellBytes is how bytes are written; JSON has no such values.
type cellBytes struct {
	Base64 string `json:"base64"`
}

// MarshalJSON writes the value; bytes as {"base64": …}.
func (c Cell) MarshalJSON() ([]byte, error) {
	if b, ok := c.V.([]byte); ok {
		return json.Marshal(cellBytes{base64.StdEncoding.EncodeToString(b)})
	}
	return json.Marshal(c.V)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *Cell) UnmarshalJSON(text []byte) (err error) {
	if len(text) > 0 && text[0] == '{' {
		var b cellBytes
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&b); err != nil {
			return err
		}
		c.V, err = base64.StdEncoding.DecodeString(b.Base64)
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return err
	}
	switch v := v.(type) {
	case nil, bool, string:
		c.V = v
	case json.Number:
		c.V, err = v.Int64()
	default:
		err = fmt.Errorf("a column cannot hold %s", text)
	}
	return err
}
