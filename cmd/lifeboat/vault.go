package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"lifeboat/internal/client/show"
	"lifeboat/internal/server"
)

// vaultCommand lists the verbs for what lies under the server; each has a file of its
// own. None needs a running server, and only those that say so need a stopped one.
type vaultCommand struct {
	Ls        vaultLsCommand        `cmd:"" help:"List servers, branches and recovery points, and why each is kept."`
	Stat      vaultStatCommand      `cmd:"" help:"Show what the vault holds and what that takes."`
	Verify    vaultVerifyCommand    `cmd:"" help:"Check what is stored, and name the recovery points that damage hurts."`
	Export    vaultExportCommand    `cmd:"" help:"Write a disk as it was at any point to a file, without a server or database."`
	GC        vaultGCCommand        `cmd:"" name:"gc" help:"Delete what no recovery point, branch or reader needs."`
	Lock      vaultLockCommand      `cmd:"" help:"Keep a recovery point until a date, whatever happens."`
	Rebuild   vaultRebuildCommand   `cmd:"" help:"Make the database, or the whole data directory, again from the vault."`
	RotateKey vaultRotateKeyCommand `cmd:"" help:"Give the vault a new master key."`

	KeepDatabase vaultKeepDatabaseCommand `cmd:"" help:"Go on with a database that was put back from an old copy, in place of what the vault keeps."`
}

// vaultFlags say which vault to look into.
type vaultFlags struct {
	Data      string `placeholder:"DIR" type:"path" help:"The server's data directory."`
	Vault     string `placeholder:"LOCATION" help:"A vault without a data directory, such as file:DIR; needs --master-key."`
	MasterKey string `placeholder:"FILE" type:"path" help:"Master key, in place of the data directory's."`
	JSON      bool   `name:"json" help:"Print the result as one JSON document."`
}

func (f *vaultFlags) access() server.VaultAccess {
	return server.VaultAccess{Data: f.Data, Vault: f.Vault, MasterKey: f.MasterKey}
}

// look opens the vault, which a server may be running on.
func (f *vaultFlags) look(ctx context.Context) (*server.OpenVault, error) {
	if f.Data == "" && f.Vault == "" {
		return nil, usageError{fmt.Errorf("name the server's data directory with --data, or a vault with --vault and --master-key")}
	}
	return f.access().Open(ctx)
}

func (f *vaultFlags) result(v any, text func(*show.Printer)) error {
	return printResult(f.JSON, v, text)
}

// printResult prints the outcome: as JSON, or as text makes it.
func printResult(asJSON bool, v any, text func(*show.Printer)) error {
	if !asJSON {
		return print(os.Stdout, text)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}
