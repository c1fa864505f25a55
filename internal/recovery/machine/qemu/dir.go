package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"lifeboat/internal/drs"
)

// Files of a machine in its directory. QEMU runs with the directory as its
// working directory and is given these names, never full paths: a unix socket's
// path may have 107 bytes only, and data directories may lie deeper.
const (
	lockFile      = "lock"     // held by whoever starts the machine, then by QEMU
	pidFile       = "qemu.pid" // locked by QEMU; removed by it on power-off
	recordFile    = "machine.json"
	controlSocket = "qmp.sock"
	consoleSocket = "console.sock" // the serial port, for one interactive client
	consoleFile   = "console.log"  // all that the serial port ever printed
	agentSocket   = "agent.sock"   // the guest agent's channel
	outputFile    = "qemu.log"     // what QEMU itself says
	varsFile      = "uefi-vars.fd"
)

// diskLink is the name by which QEMU knows disk i's socket.
func diskLink(i int) string { return "disk" + strconv.Itoa(i) + ".sock" }

// machineDir is the directory of one machine. Others may keep files in it too:
// only the names above belong to the driver.
type machineDir string

func (d machineDir) path(name string) string { return filepath.Join(string(d), name) }

// errHeld tells that a QEMU of this machine is alive.
var errHeld = errors.New("the machine is running")

// claim takes the machine's lock. The lock goes with the open file: QEMU inherits
// it, so there is no moment between its birth and its death at which a second
// server could believe that nobody runs the machine.
func (d machineDir) claim() (*os.File, error) {
	f, err := os.OpenFile(d.path(lockFile), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errHeld
	}
	return nil, &fs.PathError{Op: "lock", Path: d.path(lockFile), Err: err}
}

// held tells whether a QEMU of this machine is alive. A directory without a lock
// file has none.
func (d machineDir) held() (bool, error) {
	if !d.has(lockFile) {
		return false, nil
	}
	// A child born meanwhile would have the lock too, until it becomes a program.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	f, err := d.claim()
	if errors.Is(err, errHeld) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, f.Close()
}

func (d machineDir) has(name string) bool {
	_, err := os.Lstat(d.path(name))
	return err == nil
}

// dial connects to one of the machine's sockets, however long the path is.
func (d machineDir) dial(name string) (net.Conn, error) {
	var conn net.Conn
	err := d.shortPath(name, func(path string) (err error) {
		conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	return conn, err
}

// listen makes a socket of the machine and returns it as a file to inherit.
func (d machineDir) listen(name string) (*os.File, error) {
	if err := removeFile(d.path(name)); err != nil {
		return nil, err
	}
	var file *os.File
	err := d.shortPath(name, func(path string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		file, err = l.File()
		return errors.Join(err, l.Close())
	})
	return file, err
}

// shortPath names a file of the directory in a few bytes, while use runs.
func (d machineDir) shortPath(name string, use func(string) error) error {
	dir, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer dir.Close()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
}

// linkDisk gives the socket of disk i its short name.
func (d machineDir) linkDisk(i int, socket string) error {
	if err := removeFile(d.path(diskLink(i))); err != nil {
		return err
	}
	return os.Symlink(socket, d.path(diskLink(i)))
}

// remove deletes all files of the driver, and the directory if nobody else keeps
// anything there. The caller holds the machine's lock.
func (d machineDir) remove() error {
	names := []string{pidFile, recordFile, controlSocket, consoleSocket, consoleFile, agentSocket, outputFile, varsFile}
	links, err := filepath.Glob(d.path("disk*.sock"))
	if err != nil {
		return err
	}
	// A process killed while it wrote one of our files leaves its temporary one.
	temporary, err := filepath.Glob(d.path(".*.tmp"))
	if err != nil {
		return err
	}
	for _, l := range append(links, temporary...) {
		names = append(names, filepath.Base(l))
	}
	for _, name := range append(names, lockFile) { // the lock goes last
		if err := removeFile(d.path(name)); err != nil {
			return err
		}
	}
	err = os.Remove(string(d))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func removeFile(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// idOf reads a directory's name; false for anything that is no machine.
func idOf(name string) (drs.RecoveryInstanceID, bool) {
	id, err := drs.ParseRecoveryInstanceID(name)
	return id, err == nil
}
