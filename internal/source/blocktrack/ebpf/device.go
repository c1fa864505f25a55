package ebpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Disk is a block device to watch.
type Disk struct {
	Path string
	Size int64 // bytes
}

// UnavailableError: writes to these disks cannot be tracked here.
type UnavailableError struct {
	Reason string
	Err    error // may be nil
}

func (e *UnavailableError) Error() string {
	if e.Err == nil {
		return "ebpf tracker: " + e.Reason
	}
	return fmt.Sprintf("ebpf tracker: %s: %v", e.Reason, e.Err)
}
func (e *UnavailableError) Unwrap() error { return e.Err }

func unavailable(format string, args ...any) error {
	return &UnavailableError{Reason: fmt.Sprintf(format, args...)}
}

const sectorSize = 512

// device is where a disk lies: a whole disk, or a partition of one.
type device struct {
	name   string // name of the whole disk, as in /sys/block
	number uint32 // of the whole disk, in the kernel's encoding
	offset int64  // of the partition in it, in bytes
	size   int64  // of the whole disk
	// sequence is a number that no other disk has had since the machine started,
	// whatever names and numbers it took over; 0: the kernel (before 5.15) has none.
	sequence uint64
	nvme     bool
	head     bool // reached by several paths that hide behind it (NVMe multipath)
}

// locate finds the whole disk behind a path and checks that it can be watched.
func locate(path string) (d device, err error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return d, &UnavailableError{"disk " + path + " is not there", err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return d, unavailable("%s is no block device, and writes to a file are not seen in the block layer", path)
	}
	dir, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev)))
	if err != nil {
		return d, &UnavailableError{"no sysfs entry of " + path, err}
	}
	// Not every entry that has a start is a partition, and the minors of
	// partitions follow no rule: NVMe's lie on a major of their own.
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		start, err := number(dir, "start")
		if err != nil {
			return d, err
		}
		d.offset = start * sectorSize
		dir = filepath.Dir(dir)
	}
	d.name = filepath.Base(dir)
	if d.number, err = deviceNumber(dir); err != nil {
		return d, err
	}
	sectors, err := number(dir, "size")
	if err != nil {
		return d, err
	}
	d.size = sectors * sectorSize
	if sequence, err := strconv.ParseUint(line(dir, "diskseq"), 10, 64); err == nil {
		d.sequence = sequence
	}
	d.nvme = strings.HasPrefix(d.name, "nvme")
	if _, err := os.Stat(filepath.Join(dir, "mq")); err != nil {
		// It knows no requests, whose completion is what makes reading safe.
		d.head = d.nvme
		if under, err := below(d.name); err != nil {
			return d, err
		} else if len(under) > 0 {
			return d, unavailable("%s lies on other disks: name those (%s) instead", path, strings.Join(under, ", "))
		}
		if !d.head {
			return d, unavailable("%s is served by a driver (%s) that tells nobody when a write is done", path, d.name)
		}
	}
	if dax, _ := number(dir, "queue/dax"); dax == 1 {
		return d, unavailable("%s can be written by memory access (DAX), which the block layer does not see", path)
	}
	if zoned := line(dir, "queue/zoned"); zoned != "none" && zoned != "" {
		return d, unavailable("%s is a zoned disk", path)
	}
	return d, nil
}

// deviceNumber reads "major:minor" and encodes it as the kernel does inside,
// which is not how stat does.
func deviceNumber(dir string) (uint32, error) {
	var major, minor uint32
	if n, err := fmt.Sscanf(line(dir, "dev"), "%d:%d", &major, &minor); n != 2 {
		return 0, &UnavailableError{"device number of " + filepath.Base(dir), err}
	}
	return major<<20 | minor, nil
}

func line(dir, name string) string {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func number(dir, name string) (int64, error) {
	n, err := strconv.ParseInt(line(dir, name), 10, 64)
	if err != nil {
		return 0, &UnavailableError{name + " of " + filepath.Base(dir), err}
	}
	return n, nil
}

// below names the whole disks that a stacked one (device mapper, md) lies on, at
// any depth.
func below(whole string) ([]string, error) {
	slaves, err := os.ReadDir("/sys/block/" + whole + "/slaves")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, &UnavailableError{"what " + whole + " lies on", err}
	}
	var names []string
	for _, s := range slaves {
		dir, err := filepath.EvalSymlinks("/sys/class/block/" + s.Name())
		if err != nil {
			return nil, &UnavailableError{"what " + whole + " lies on", err}
		}
		if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
			dir = filepath.Dir(dir)
		}
		name := filepath.Base(dir)
		deeper, err := below(name)
		if err != nil {
			return nil, err
		}
		names = append(append(names, name), deeper...)
	}
	return names, nil
}

// touch reads a block around the page cache, so that the path it takes is learnt.
func (d device) touch() error {
	f, err := os.OpenFile("/dev/"+d.name, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return &UnavailableError{"read " + d.name, err}
	}
	defer f.Close()
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return &UnavailableError{"read " + d.name, err}
	}
	defer func() { _ = unix.Munmap(page) }()
	if _, err := f.ReadAt(page, 0); err != nil {
		return &UnavailableError{"read " + d.name, err}
	}
	return nil
}
