package rig

import (
	"context"
	"net"
	"os"
	"time"

	"lifeboat/internal/demo/guest"
)

// Pause waits for a while, or until ctx ends, and then says why it did.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func dial(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Follow copies what is appended to a file to a console until ctx ends. The file
// may not be there yet.
func Follow(ctx context.Context, path string, console *guest.Console) {
	var file *os.File
	defer func() { file.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		if file == nil {
			if opened, err := os.Open(path); err == nil {
				file = opened
			}
		}
		for file != nil {
			n, err := file.Read(buffer)
			if n > 0 {
				_, _ = console.Write(buffer[:n]) // never fails
			}
			if err != nil {
				break // its present end; more will come
			}
		}
		if err := Pause(ctx, 20*time.Millisecond); err != nil {
			console.Close(err)
			return
		}
	}
}
