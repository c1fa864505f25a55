package qemu

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"lifeboat/internal/recovery/machine"
)

// openTaps makes a tap interface for each bridged NIC, in order, and plugs it
// into its bridge. The kernel removes an interface with the last descriptor of
// it, so nothing is left behind by a machine that dies.
func openTaps(nics []machine.NIC) ([]*os.File, error) {
	var taps []*os.File
	for _, n := range nics {
		bridge, ok := n.Network.BridgeName()
		if !ok {
			continue
		}
		tap, err := openTap(bridge)
		if err != nil {
			closeAll(taps)
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
				err = fmt.Errorf("%w: give the server the capability CAP_NET_ADMIN and access to /dev/net/tun, or use the network %s", err, machine.UserNAT)
			}
			return nil, fmt.Errorf("plug into bridge %s: %w", bridge, err)
		}
		taps = append(taps, tap)
	}
	return taps, nil
}

func openTap(bridge string) (*os.File, error) {
	br, err := net.InterfaceByName(bridge)
	if err != nil {
		return nil, fmt.Errorf("%w: create it, or change the server's network", err)
	}
	tap, err := os.OpenFile("/dev/net/tun", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	name, err := plug(tap, br.Name)
	if err != nil {
		tap.Close()
		return nil, fmt.Errorf("tap interface %s: %w", name, err)
	}
	return tap, nil
}

// plug makes the interface behind tap, adds it to the bridge and sets it up.
func plug(tap *os.File, bridge string) (string, error) {
	request, err := unix.NewIfreq("lifeboat%d") // the kernel fills in the number
	if err != nil {
		return "", err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(int(tap.Fd()), unix.TUNSETIFF, request); err != nil {
		return "", err
	}
	name := request.Name()
	link, err := net.InterfaceByName(name)
	if err != nil {
		return name, err
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return name, err
	}
	defer func() { _ = unix.Close(s) }() // it carries requests only
	member, err := unix.NewIfreq(bridge)
	if err != nil {
		return name, err
	}
	member.SetUint32(uint32(link.Index))
	if err := unix.IoctlIfreq(s, unix.SIOCBRADDIF, member); err != nil {
		return name, fmt.Errorf("add to bridge: %w", err)
	}
	up, err := unix.NewIfreq(name)
	if err != nil {
		return name, err
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return name, unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, up)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
