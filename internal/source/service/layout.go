package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lifeboat/internal/durable"
)

// Name is the service's.
const Name = "lifeboat-agent.service"

// Where the parts of an installation lie.
const (
	Program   = "/usr/local/bin/lifeboat-agent"
	StateDir  = "/var/lib/lifeboat-agent"
	Authority = configDir + "/ca.pem"
	TokenFile = configDir + "/token"

	configDir    = "/etc/lifeboat-agent"
	settingsFile = configDir + "/settings.json"
	unitFile     = "/etc/systemd/system/" + Name
	previous     = Program + ".previous" // while an upgrade is tried
)

// Settings are what an installation is made from; unit and all else follow from
// them.
type Settings struct {
	// Args are those of `lifeboat agent`, all paths as the running service sees them.
	Args  []string `json:"args"`
	State string   `json:"state"`
	// Hooks: programs of the user's run around each freeze, with whatever rights they
	// need.
	Hooks bool `json:"hooks"`
}

// Place is where the service is installed. The zero value is this machine; with
// Root it is the tree below a folder, such as an image that will boot elsewhere:
// then nothing is started.
type Place struct{ Root string }

func (p Place) path(name string) string { return filepath.Join("/", p.Root, name) }

// Installed reads the settings of the installation, or returns ErrNotInstalled.
func (p Place) Installed() (Settings, error) {
	var s Settings
	raw, err := os.ReadFile(p.path(settingsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, ErrNotInstalled
	}
	if err != nil {
		return s, fmt.Errorf("read settings of the agent: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, fmt.Errorf("settings %s are damaged: install the agent again; its state stays: %w", p.path(settingsFile), err)
	}
	return s, nil
}

// ErrNotInstalled: there is no agent to upgrade or remove.
var ErrNotInstalled = errors.New("no agent is installed here: install one with `lifeboat agent install`")

func (p Place) write(name string, data []byte, perm fs.FileMode) error {
	path := p.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("install agent: %w", err)
	}
	return durable.Files{}.WriteFile("install agent", path, data, perm)
}

func (p Place) writeSettings(s Settings) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("install agent: %w", err)
	}
	return p.write(settingsFile, append(raw, '\n'), 0o644)
}

// copyProgram puts a program in place. What runs from the old file goes on.
func (p Place) copyProgram(from string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("install agent: %w", err)
	}
	return p.write(Program, raw, 0o755)
}

// remove removes files that may be absent.
func (p Place) remove(names ...string) error {
	var errs []error
	for _, name := range names {
		if err := os.Remove(p.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
