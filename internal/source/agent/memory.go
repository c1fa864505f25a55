package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"lifeboat/internal/durable"
	"lifeboat/internal/replication"
)

// memory is which disks the agent replicates, from one start to the next: disks are
// what they are and not what they are called, and none is left out because it is not
// there today. It is one file of the state directory, replaced whole.
type memory struct {
	Version int `json:"version"`
	// All: the disks of a whole machine, new ones as well.
	All bool `json:"all"`
	// Outside: the disks are of a machine that the agent does not run on.
	Outside bool         `json:"outside,omitempty"`
	Disks   []memoryDisk `json:"disks"` // the boot disk first
}

// memoryDisk is a disk that is replicated.
type memoryDisk struct {
	Arg      string `json:"arg,omitempty"` // what the user named it; empty: one of all
	Name     string `json:"name"`          // its path when it was last seen
	Identity string `json:"identity,omitempty"`
	Bytes    int64  `json:"bytes"`
	// Left is when points began to go on without it; zero: they hold it.
	Left time.Time `json:"left,omitzero"`
}

const (
	memoryFile    = "disks.json"
	memoryVersion = 1
)

// What is remembered is of another kind of machine than is named now.
var (
	errOutside = errors.New("the state directory belongs to a machine that is protected from outside: name that one with --domain or --qmp, or another --state")
	errInside  = errors.New("the state directory belongs to disks of the machine that the agent runs on: name another --state for a machine under QEMU")
)

// loadMemory reads what is remembered; nothing where there is no file yet.
func loadMemory(dir string) (m memory, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, memoryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return memory{Version: memoryVersion}, nil
	}
	if err != nil {
		return m, fmt.Errorf("state directory: %w", err)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, damaged(dir, fmt.Errorf("%s: %w", memoryFile, err))
	}
	if m.Version > memoryVersion {
		return m, fmt.Errorf("state directory %s was written by a newer agent: upgrade this one", dir)
	}
	ok := m.Version == memoryVersion && len(m.Disks) > 0 && len(m.Disks) <= replication.MaxDisks
	for _, d := range m.Disks {
		ok = ok && (filepath.IsAbs(d.Name) || m.Outside && d.Name != "") && d.Bytes > 0 && (d.Arg != "") != m.All
	}
	if !ok {
		return m, damaged(dir, fmt.Errorf("%s: what it says of the disks cannot be", memoryFile))
	}
	return m, nil
}

// save makes the memory durable, if it is another one than was.
func (m memory) save(dir string, was memory) error {
	if m.All == was.All && m.Outside == was.Outside && slices.Equal(m.Disks, was.Disks) {
		return nil
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("remember disks: %w", err)
	}
	if err := (durable.Files{}).WriteFile("remember disks", filepath.Join(dir, memoryFile), append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}
