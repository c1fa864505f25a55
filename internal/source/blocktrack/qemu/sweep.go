package qemu

import (
	"context"
	"fmt"
	"strings"
)

type export struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

// take removes the exports, jobs and nodes with the given prefix, in the order in
// which they hold each other.
func (m *machine) take(ctx context.Context, prefix string) error {
	if err := m.stopServer(ctx, prefix); err != nil {
		return err
	}
	if err := m.cancel(ctx, prefix); err != nil {
		return err
	}
	var nodes []struct {
		Name string `json:"node-name"`
	}
	if err := m.do(ctx, "query-named-block-nodes", args{"flat": true}, &nodes); err != nil {
		return err
	}
	for _, kind := range []string{"-o", "-f"} { // an overlay before its file
		for _, n := range nodes {
			if !strings.HasPrefix(n.Name, prefix) || !strings.Contains(n.Name[len(prefix):], kind) {
				continue
			}
			if err := m.do(ctx, "blockdev-del", args{"node-name": n.Name}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// stopServer ends QEMU's NBD server if it is ours: it exports what has the prefix,
// or nothing.
func (m *machine) stopServer(ctx context.Context, prefix string) error {
	var exports []export
	if err := m.do(ctx, "query-block-exports", nil, &exports); err != nil {
		return err
	}
	for _, e := range exports {
		if e.Type == "nbd" && !strings.HasPrefix(e.ID, prefix) {
			return nil // somebody else's
		}
	}
	// It waits until nobody is connected, and refuses where there is no server.
	err := m.do(ctx, "nbd-server-stop", nil, nil)
	if err != nil && m.Err() != nil {
		return err
	}
	return nil
}

// sweep removes all that trackers made with names of the given prefix, but for the
// bitmaps to be kept.
func (m *machine) sweep(ctx context.Context, prefix string, keep func(bitmap string) bool) error {
	if err := m.take(ctx, prefix); err != nil {
		return err
	}
	drives, err := m.drives(ctx)
	if err != nil {
		return err
	}
	for _, d := range drives {
		if d.Inserted == nil {
			continue
		}
		for _, b := range d.Inserted.Bitmaps {
			if !strings.HasPrefix(b.Name, prefix) || keep(b.Name) {
				continue
			}
			if err := m.do(ctx, "block-dirty-bitmap-remove", args{"node": d.Inserted.Node, "name": b.Name}, nil); err != nil {
				return fmt.Errorf("bitmap %s: %w", b.Name, err)
			}
		}
	}
	return nil
}
