package service

import (
	"fmt"
	"net"
	"os"
)

// Notifier tells systemd how the agent fares, where it was started by systemd.
// Its zero value tells nobody.
type Notifier struct {
	socket string
	ready  bool
}

// NewNotifier returns the one for this process.
func NewNotifier() *Notifier { return &Notifier{socket: os.Getenv("NOTIFY_SOCKET")} }

// Status tells a line that `systemctl status` shows. With the first one that is
// ready the service counts as started. One goroutine at a time may call it.
func (n *Notifier) Status(text string, ready bool) error {
	if n.socket == "" {
		return nil
	}
	message := "STATUS=" + text
	if ready && !n.ready {
		message += "\nREADY=1"
	}
	name := n.socket
	if name[0] == '@' {
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer func() { _ = conn.Close() }() // it was written to, or that has failed
	if _, err := conn.Write([]byte(message)); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	n.ready = n.ready || ready
	return nil
}
