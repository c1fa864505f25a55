package guest

import (
	"context"
	"fmt"
)

// Add puts a disk into a slot of the running machine.
func (m *Machine) Add(ctx context.Context, slot int, d Disk) error {
	node := fmt.Sprintf("slot%d-disk", slot)
	err := m.qmp.Run(ctx, "blockdev-add", map[string]any{
		"driver": "raw", "node-name": node, "discard": "unmap",
		"file": map[string]any{"driver": "file", "filename": d.Path},
	}, nil)
	if err != nil {
		return err
	}
	device := map[string]any{"driver": "virtio-blk-pci", "id": node, "drive": node, "serial": d.Serial, "bus": fmt.Sprintf("slot%d", slot)}
	if d.Bus == NVMe {
		device["driver"] = "nvme"
	}
	return m.qmp.Run(ctx, "device_add", device, nil)
}

// Grow makes the disk in a slot larger, in bytes.
func (m *Machine) Grow(ctx context.Context, slot int, size int64) error {
	return m.qmp.Run(ctx, "block_resize", map[string]any{"node-name": fmt.Sprintf("slot%d-disk", slot), "size": size}, nil)
}

// Remove asks the machine to let the disk in a slot go. It has gone once the machine says
// so, which may take seconds.
func (m *Machine) Remove(ctx context.Context, slot int) error {
	return m.qmp.Run(ctx, "device_del", map[string]any{"id": fmt.Sprintf("slot%d-disk", slot)}, nil)
}
