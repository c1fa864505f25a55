package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/ebpf"
	"lifeboat/internal/source/blocktrack/tracktest"
)

// stage is work done between two readings of all disks.
type stage struct{ name, script string }

// disks are watched; stacks of devices are built on them. The
// filesystems are never quite at rest: ext4 goes on making inode tables that mke2fs
// left out, which dm-crypt turns into changes.
var disks = []string{"/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd", "/dev/nvme0n1"}

var stages = []stage{
	{"filesystems are made", `
		export DM_DISABLE_UDEV=1
		dmsetup create volume --table "0 61440 linear /dev/vda2 4096"
		dmsetup create secret --table "0 98304 crypt aes-xts-plain64 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 0 /dev/vdb 0 1 allow_discards"
		echo md0 >/sys/module/md_mod/parameters/new_array
		md=/sys/block/md0/md
		echo none >$md/metadata_version
		echo raid0 >$md/level
		echo 65536 >$md/chunk_size
		echo 2 >$md/raid_disks
		cat /sys/block/vdc/dev >$md/new_dev
		cat /sys/block/vdd/dev >$md/new_dev
		echo 0 >$md/dev-vdc/slot
		echo 1 >$md/dev-vdd/slot
		echo 32768 >$md/dev-vdc/size
		echo 32768 >$md/dev-vdd/size
		echo active >$md/array_state
		/bin/mke2fs -q -t ext4 /dev/vda1
		/bin/mke2fs -q -t ext4 /dev/mapper/volume
		/bin/mke2fs -q -t ext4 /dev/mapper/secret
		/bin/mke2fs -q -t ext4 /dev/md0
		mkfs.xfs -q -f /dev/nvme0n1
		mkdir -p /mnt/part /mnt/volume /mnt/secret /mnt/raid /mnt/nvme
		mount -t ext4 -o discard /dev/vda1 /mnt/part
		mount -t ext4 /dev/mapper/volume /mnt/volume
		mount -t ext4 -o discard /dev/mapper/secret /mnt/secret
		mount -t ext4 -o discard /dev/md0 /mnt/raid
		mount -t xfs -o discard /dev/nvme0n1 /mnt/nvme`},
	{"files are written", `
		for m in part volume secret raid nvme; do
			cd /mnt/$m
			dd if=/dev/urandom of=direct bs=64k count=16 oflag=direct
			for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=synced bs=4k count=1 seek=$((i * 3)) conv=notrunc,fsync; done
		done
		cd /mnt/nvme
		for i in $(seq 200); do dd if=/dev/urandom of=f$i bs=20k count=1; done`},
	{"files are removed and space is discarded", `
		cd /mnt/nvme
		for i in $(seq 1 2 200); do rm f$i; done
		for m in part secret raid; do rm /mnt/$m/direct; done
		sync
		fstrim /mnt/part
		fstrim /mnt/raid`},
	{"devices are written to", `
		dd if=/dev/urandom of=/dev/vda bs=512 count=1 seek=34 oflag=direct
		dd if=/dev/urandom of=/dev/vda2 bs=4k count=3 seek=2 conv=fsync
		umount /mnt/volume
		dmsetup remove volume
		blkdiscard -o 1048576 -l 1048576 /dev/vda2`},
}

// track runs the stages and compares what the tracker named with what changed.
func track() error {
	var watch []ebpf.Disk
	var devices []*blocktrack.Disk
	for _, path := range disks {
		dev, err := blocktrack.Open(path)
		if err != nil {
			return err
		}
		size, err := dev.Size()
		if err != nil {
			return err
		}
		watch = append(watch, ebpf.Disk{Path: path, Size: size})
		devices = append(devices, dev)
	}
	began := time.Now()
	tracker, err := ebpf.Open(watch)
	if err != nil {
		return err
	}
	fmt.Printf("tracking after %.1fs\n", time.Since(began).Seconds())
	defer func() { _ = tracker.Close() }()
	if _, err := tracker.Swap(context.Background()); err != nil {
		return err
	}
	var followers []*tracktest.Follower
	for _, dev := range devices {
		f, err := tracktest.NewFollower(dev)
		if err != nil {
			return err
		}
		followers = append(followers, f)
	}
	var missed error
	fmt.Printf("first reading done after %.1fs\n", time.Since(began).Seconds())
	for _, s := range stages {
		out, err := exec.CommandContext(context.Background(), "sh", "-ec", s.script+"\ncd /; sync").CombinedOutput()
		if err != nil {
			log, _ := exec.CommandContext(context.Background(), "dmesg").CombinedOutput()
			return fmt.Errorf("%s: %w: %s\n%s", s.name, err, out, log[max(0, len(log)-1000):])
		}
		before, err := tracker.Swap(context.Background())
		if err != nil {
			return err
		}
		for i, c := range before {
			named, err := followers[i].Read(c)
			if err != nil {
				return err
			}
			fmt.Printf("%s: %s: %d runs of blocks changed and named, %d bytes named\n", s.name, disks[i], named, c.Bytes())
		}
		after, err := tracker.Swap(context.Background())
		if err != nil {
			return err
		}
		for i, f := range followers {
			if before[i].All || after[i].All {
				missed = errors.Join(missed, fmt.Errorf("%s: %s: the tracker lost sight: %s", s.name, disks[i], before[i].Why+after[i].Why))
			}
			if chunks := f.Missed(after[i]); len(chunks) > 0 {
				missed = errors.Join(missed, fmt.Errorf("%s: %s: blocks changed unnamed: %v", s.name, disks[i], chunks))
			}
		}
		fmt.Printf("%s: done after %.1fs\n", s.name, time.Since(began).Seconds())
	}
	return missed
}
