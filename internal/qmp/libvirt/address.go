package libvirt

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
)

// address is where a daemon listens, and what it is asked to open.
type address struct {
	sockets []string // the first that is there
	open    string   // qemu:///system or qemu:///session
}

// parse reads a connection URI of a daemon on this machine: qemu:///system,
// qemu:///session, or one with ?socket=PATH.
func parse(uri string) (address, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return address{}, fmt.Errorf("libvirt URI: %w", err)
	}
	if u.Scheme != "qemu" && u.Scheme != "qemu+unix" || u.Path != "/system" && u.Path != "/session" {
		return address{}, fmt.Errorf("libvirt URI %s: want qemu:///system or qemu:///session", uri)
	}
	if u.Host != "" {
		return address{}, fmt.Errorf("libvirt URI %s: the disks are read through a socket of QEMU's: run the agent on %s", uri, u.Host)
	}
	a := address{open: "qemu://" + u.Path}
	if socket := u.Query().Get("socket"); socket != "" {
		a.sockets = []string{socket}
		return a, nil
	}
	run := "/run"
	if u.Path == "/session" {
		if run = os.Getenv("XDG_RUNTIME_DIR"); run == "" {
			run = fmt.Sprintf("/run/user/%d", os.Getuid())
		}
	}
	for _, name := range []string{"virtqemud-sock", "libvirt-sock"} { // of a daemon for QEMU alone, of one for all
		a.sockets = append(a.sockets, filepath.Join(run, "libvirt", name))
	}
	return a, nil
}
