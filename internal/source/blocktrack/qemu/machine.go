package qemu

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"lifeboat/internal/qmp"
)

// commandTimeout bounds one QMP command; a transaction waits for the guest's
// requests under way.
const commandTimeout = 30 * time.Second

// machine is a connection to a QEMU.
type machine struct{ monitor }

func (m *machine) close() { _ = m.Close() } // the machine goes on either way

type args map[string]any

func (m *machine) do(ctx context.Context, command string, arguments args, result any) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if arguments == nil {
		return m.Run(ctx, command, nil, result)
	}
	return m.Run(ctx, command, arguments, result)
}

// drive is what QEMU tells of a disk.
type drive struct {
	Device   string `json:"device"`
	QDev     string `json:"qdev"`
	Inserted *struct {
		Node     string `json:"node-name"`
		File     string `json:"file"`
		ReadOnly bool   `json:"ro"`
		Image    struct {
			Size int64 `json:"virtual-size"`
		} `json:"image"`
		Bitmaps []bitmap `json:"dirty-bitmaps"`
	} `json:"inserted"`
}

type bitmap struct {
	Name         string `json:"name"`
	Count        int64  `json:"count"` // bytes
	Recording    bool   `json:"recording"`
	Busy         bool   `json:"busy"`
	Inconsistent bool   `json:"inconsistent"`
}

func (d drive) bitmap(name string) (bitmap, bool) {
	for _, b := range d.Inserted.Bitmaps {
		if b.Name == name {
			return b, true
		}
	}
	return bitmap{}, false
}

// name is what the disk is called: the same after a restart of the machine.
func (d drive) name() string {
	if d.Device != "" {
		return d.Device
	}
	// The path of a device in QEMU's tree, of which the ID is a part.
	return strings.TrimPrefix(path.Clean(d.object()), "/machine/peripheral/")
}

// object is the path of the guest's device.
func (d drive) object() string { return strings.TrimSuffix(d.QDev, "/virtio-backend") }

// flash tells whether this is flash memory, for firmware and its variables.
func (d drive) flash() bool {
	return strings.HasPrefix(d.Device, "pflash") || strings.Contains(d.QDev, "flash")
}

// writable tells whether this is a disk that the guest can write to. The firmware's
// variables are none.
func (d drive) writable() bool {
	return d.Inserted != nil && !d.Inserted.ReadOnly && d.Inserted.Node != "" && !d.flash()
}

func (m *machine) drives(ctx context.Context) ([]drive, error) {
	var all []drive
	err := m.do(ctx, "query-block", nil, &all)
	return all, err
}

// pollEvery is how often QEMU is asked whether something has ended.
const pollEvery = 5 * time.Millisecond

type job struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Error  string `json:"error"`
}

func (m *machine) jobs(ctx context.Context) ([]job, error) {
	var jobs []job
	err := m.do(ctx, "query-jobs", nil, &jobs)
	return jobs, err
}

// create has QEMU create an image and waits for that.
func (m *machine) create(ctx context.Context, id string, options args) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if err := m.do(ctx, "blockdev-create", args{"job-id": id, "options": options}, nil); err != nil {
		return err
	}
	for {
		jobs, err := m.jobs(ctx)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if j.ID == id && j.Status == "concluded" {
				if err := m.do(ctx, "job-dismiss", args{"id": id}, nil); err != nil {
					return err
				}
				if j.Error != "" {
					return fmt.Errorf("qemu could not create a file: %s", j.Error)
				}
				return nil
			}
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// cancel ends the jobs with the given prefix and waits until they are gone.
func (m *machine) cancel(ctx context.Context, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	told := map[string]bool{}
	for {
		jobs, err := m.jobs(ctx)
		if err != nil {
			return err
		}
		left := false
		for _, j := range jobs {
			if !strings.HasPrefix(j.ID, prefix) {
				continue
			}
			left = true
			command := "job-cancel"
			if j.Status == "concluded" {
				command = "job-dismiss"
			}
			if told[j.ID+command] {
				continue
			}
			told[j.ID+command] = true
			var refused *qmp.Error // it may end meanwhile
			if err := m.do(ctx, command, args{"id": j.ID}, nil); err != nil && !errors.As(err, &refused) {
				return err
			}
		}
		if !left {
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context) error {
	timer := time.NewTimer(pollEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
