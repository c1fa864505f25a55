package guest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/test/guest"
)

// changing is a machine whose disks come, grow and go. It keeps the agent's state and log
// on its first disk, as machines do, which is written to without a pause.
type changing struct {
	*testing.T
	*site
	machine *guest.Machine
}

// Disks that come to a running machine are told of, or replicated, as the user wants it;
// they grow, and go, and meanwhile points are made of the others. When the machine starts with its
// disks in another order, each still is the one that it was.
func TestDisksComeAndGo(t *testing.T) {
	c := &changing{T: t, site: newSite(t)}
	dir := t.TempDir()
	disk := func(bus guest.Bus, serial string, mib int64) guest.Disk {
		d := guest.Disk{Path: blank(t, filepath.Join(dir, serial), mib), Bus: bus, Serial: serial}
		f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(serial)
			_ = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first, second := disk(guest.Virtio, "first", 96), disk(guest.Virtio, "second", 16)
	third, fourth := disk(guest.Virtio, "third", 16), disk(guest.NVMe, "fourth", 16)
	ctx := context.WithoutCancel(t.Context())

	c.boot(first, second)
	c.run("/bin/mke2fs -q -t ext4 /dev/vda; printf first | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null")
	c.startAgent()
	c.has("vda 96", "vdb 16")
	c.pointOf("first", "second")
	eventually(t, "a point of frozen filesystems", func() (string, bool) {
		points := c.points(t)
		last := points[len(points)-1]
		return last.consistency, strings.EqualFold(last.consistency, "filesystem")
	})

	c.replicateNew(false)
	must(t, c.machine.Add(ctx, 0, third))
	c.said("new disks are not replicated")
	c.has("vda 96", "vdb 16")
	c.pointOf("first", "second")

	c.replicateNew(true)
	c.has("vda 96", "vdb 16", "vdc 16")
	c.pointOf("first", "second", "third")
	must(t, c.machine.Grow(ctx, 0, 24<<20))
	c.has("vda 96", "vdb 16", "vdc 24")
	must(t, c.machine.Add(ctx, 1, fourth))
	c.has("vda 96", "vdb 16", "vdc 24", "nvme0n1 16")
	c.pointOf("first", "second", "third", "fourth")

	must(t, c.machine.Remove(ctx, 1))
	c.said("a disk is gone")
	c.said("a disk has left")
	c.has("vda 96", "vdb 16", "vdc 24")
	c.pointOf("first", "second", "third")

	c.machine.Kill()
	c.boot(third, fourth, second, first)
	c.startAgent()
	c.has("vdc 96", "vdb 16", "vda 24", "nvme0n1 16")
	c.pointOf("first", "second", "third", "fourth")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *changing) boot(disks ...guest.Disk) {
	c.Helper()
	c.machine = guest.Boot(c.T, guest.Config{
		Disks: disks, Slots: 2, Logs: []string{"agent", "writer"},
		Files: map[string]string{"lifeboat": binary, "ca.pem": c.server.CAFile},
	})
}

func (c *changing) run(script string) string {
	c.Helper()
	return c.machine.Run(c.T, "sh", "-ec", script)
}

// startAgent has all disks replicated, and the first one written to.
func (c *changing) startAgent() {
	c.Helper()
	c.run(`
		mkdir -p /boot
		for disk in /sys/block/vd*; do
			[ "$(cat $disk/serial)" != first ] || mount -t ext4 /dev/${disk##*/} /boot
		done
		mkdir -p /boot/state
		ln -s /boot/state /mnt/state`)
	c.machine.Background(c.T, "writer", "sh", "-c",
		`while dd if=/dev/urandom of=/boot/busy bs=4k count=16 conv=notrunc,fsync 2>/dev/null; do :; done`)
	args := append(c.agent("all"), "--disk-grace", "2s")
	c.machine.Background(c.T, "agent", append([]string{"sh", "-c", `exec "$@" 2>>/boot/log`, "agent"}, args...)...)
	c.Cleanup(func() {
		if out, err := c.machine.Do(guest.Command{Args: []string{"tail", "-n", "40", "/boot/log"}}); c.Failed() {
			c.Logf("agent (%v):\n%s", err, out)
		}
	})
}

func (c *changing) replicateNew(yes bool) {
	c.Helper()
	servers, err := c.server.DescribeSourceServers(c.Context(), &awsdrs.DescribeSourceServersInput{})
	must(c.T, err)
	_, err = c.server.UpdateReplicationConfiguration(c.Context(), &awsdrs.UpdateReplicationConfigurationInput{
		SourceServerID: servers.Items[0].SourceServerID, AutoReplicateNewDisks: aws.Bool(yes),
	})
	must(c.T, err)
}

// said waits until the agent has.
func (c *changing) said(what string) {
	c.Helper()
	eventually(c.T, "the agent says: "+what, func() (string, bool) {
		log := c.run("cat /boot/log")
		return fmt.Sprintf("%d bytes of log", len(log)), strings.Contains(log, what)
	})
}

// has waits until the API lists just these disks, as names and sizes in MiB.
func (c *changing) has(want ...string) {
	c.Helper()
	eventually(c.T, fmt.Sprint("the API lists ", want), func() (string, bool) {
		servers, err := c.server.DescribeSourceServers(c.Context(), &awsdrs.DescribeSourceServersInput{})
		must(c.T, err)
		var now []string
		for _, s := range servers.Items {
			for _, d := range s.DataReplicationInfo.ReplicatedDisks {
				now = append(now, fmt.Sprintf("%s %d", strings.TrimPrefix(aws.ToString(d.DeviceName), "/dev/"), d.TotalStorageBytes>>20))
			}
		}
		return fmt.Sprint(now), slices.Equal(now, want)
	})
}

// pointOf waits until there is a new point, and it is of just these disks, in this order.
func (c *changing) pointOf(want ...string) {
	c.Helper()
	last := func() (p point) {
		if points := c.points(c.T); len(points) > 0 {
			p = points[len(points)-1]
		}
		return p
	}
	before, image := last(), filepath.Join(c.TempDir(), "image")
	eventually(c.T, fmt.Sprint("a point is of ", want), func() (string, bool) {
		p := last()
		if p == before {
			return "no new point", false
		}
		var now []string
		for i := range len(want) + 1 {
			if err := c.tryExport(c.T, p, i, image); err != nil {
				if len(now) < len(want) {
					return err.Error(), false
				}
				break
			}
			raw, err := os.ReadFile(image)
			must(c.T, err)
			now = append(now, strings.TrimRight(string(raw[:16]), "\x00"))
			must(c.T, os.Remove(image))
		}
		return fmt.Sprint(now), slices.Equal(now, want)
	})
}
