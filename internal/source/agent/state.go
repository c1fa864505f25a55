package agent

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
)

const (
	identityFile    = "identity.json"
	lockFile        = "lock"
	identityVersion = 1
)

// identity is what a registration gave the agent. It is one file, written at
// once, so there is never half of one.
type identity struct {
	Version            int                `json:"version"`
	SourceServerID     drs.SourceServerID `json:"sourceServerID"`
	ReplicationAddress string             `json:"replicationAddress"`
	HardwareID         string             `json:"hardwareID"`
	Image              bool               `json:"image"` // the disks are image files
	Disks              []string           `json:"disks"`
	Key                string             `json:"key"`         // PEM, PKCS #8
	Certificate        string             `json:"certificate"` // PEM
	CA                 string             `json:"ca"`          // PEM

	pair tls.Certificate
	pool *x509.CertPool
}

// closeState lets go of the directory at once. Closing alone does not: a program that is
// being started in this moment holds a copy of every descriptor until it runs.
func closeState(lock *os.File) {
	_ = syscall.Flock(int(lock.Fd()), syscall.LOCK_UN) // closing unlocks, too, if later
	lock.Close()
}

// openState makes the directory where it is absent and locks it: two agents
// with one state directory would be two writers with one identity.
func openState(dir string) (lock *os.File, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("state directory %s is in use by another agent: stop that one, or name another --state", dir)
	}
	return lock, nil
}

// errNoIdentity: the directory is empty, so the agent must register.
var errNoIdentity = errors.New("no identity yet")

// damaged refuses a state directory. A new identity is never made over an old one.
func damaged(dir string, err error) error {
	return fmt.Errorf("state directory %s is damaged (%w): put back a copy, or start with an empty directory and a fresh install token; "+
		"the same machine keeps its source server", dir, err)
}

// loadIdentity reads the identity, or returns errNoIdentity for an empty directory.
func loadIdentity(dir string) (identity, error) {
	raw, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return identity{}, fmt.Errorf("state directory: %w", err)
		}
		for _, e := range entries {
			if name := e.Name(); name != lockFile && !strings.HasPrefix(name, "."+identityFile) && !strings.HasSuffix(name, tableSuffix) && name != memoryFile {
				return identity{}, damaged(dir, fmt.Errorf("it holds %s but no %s", name, identityFile))
			}
		}
		return identity{}, errNoIdentity
	}
	if err != nil {
		return identity{}, fmt.Errorf("state directory: %w", err)
	}
	var id identity
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&id); err != nil {
		return identity{}, damaged(dir, fmt.Errorf("%s: %w", identityFile, err))
	}
	if id.Version > identityVersion {
		return identity{}, fmt.Errorf("state directory %s was written by a newer agent: upgrade this one", dir)
	}
	if err := id.parse(); err != nil {
		return identity{}, damaged(dir, fmt.Errorf("%s: %w", identityFile, err))
	}
	return id, nil
}

// parse checks the identity as a whole.
func (id *identity) parse() (err error) {
	if _, err := drs.ParseSourceServerID(string(id.SourceServerID)); err != nil {
		return err
	}
	if id.ReplicationAddress == "" || id.HardwareID == "" || len(id.Disks) == 0 || id.Version < 1 {
		return errors.New("fields are missing")
	}
	if id.pair, err = tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key)); err != nil {
		return fmt.Errorf("key and certificate: %w", err)
	}
	if name := id.pair.Leaf.Subject.CommonName; name != string(id.SourceServerID) {
		return fmt.Errorf("the certificate is for %s, not for %s", name, id.SourceServerID)
	}
	id.pool = x509.NewCertPool()
	if !id.pool.AppendCertsFromPEM([]byte(id.CA)) {
		return errors.New("no CA certificate")
	}
	return nil
}

// save makes the identity durable, once.
func (id *identity) save(dir string) error {
	raw, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	if err := (durable.Files{}).CreateFile("save identity", filepath.Join(dir, identityFile), raw, 0o600); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// checkExpiry tells what to do about a certificate that is past its time.
func (id *identity) checkExpiry(now time.Time) error {
	if leaf := id.pair.Leaf; now.After(leaf.NotAfter) {
		return fmt.Errorf("the agent's certificate expired at %s, and this machine's clock says %s: set the clock if it is wrong; otherwise "+
			"start the agent with an empty --state directory and a fresh install token; the machine keeps its source server %s",
			leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), id.SourceServerID)
	}
	return nil
}

// checkMachine refuses to continue the history of one machine with another's disks.
func (id *identity) checkMachine(hardwareID string, image bool, disks []string) error {
	if !id.Image && !image && id.HardwareID != hardwareID {
		return fmt.Errorf("the state directory belongs to another machine (source server %s): if this machine was registered with a "+
			"--hostname, give the same one; if it is a clone, start the agent with an empty --state directory and a fresh install token",
			id.SourceServerID)
	}
	if id.Image != image {
		return fmt.Errorf("source server %s replicates %s, not what --disk names now: name the same disks, or another --state", id.SourceServerID, strings.Join(id.Disks, ", "))
	}
	if !image {
		return nil // the server knows the machine's disks by what they are
	}
	for _, d := range id.Disks {
		if !slices.Contains(disks, d) {
			return fmt.Errorf("source server %s replicates %s, which --disk does not name: name all its disks, or another --state", id.SourceServerID, d)
		}
	}
	return nil
}
