package freeze

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is a mounted filesystem.
type Mount struct {
	Dir    string
	Type   string
	Source string

	id     uint64 // the kernel's for this mount
	hidden bool   // another filesystem is mounted over it, so that Dir does not lead to it
}

// Mounts returns the filesystems that are mounted for writing and lie, at whatever
// depth of partitions and stacked devices, on one of the disks: each once, the
// latest mounted first. A filesystem in a file of another one has been mounted
// after it, and must be frozen before it. Filesystems that lie on none of the disks, but
// on others that do (overlay, a directory bound elsewhere), are held with those.
func Mounts(disks []string) ([]Mount, error) {
	wanted := map[string]bool{}
	for _, d := range disks {
		var stat unix.Stat_t
		if err := unix.Stat(d, &stat); err != nil {
			return nil, fmt.Errorf("find filesystems of %s: %w", d, err)
		}
		if stat.Mode&unix.S_IFMT == unix.S_IFBLK {
			for _, name := range leaves(unix.Major(stat.Rdev), unix.Minor(stat.Rdev)) {
				wanted[name] = true
			}
		}
	}
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find filesystems: %w", err)
	}
	var found []Mount
	at := map[[2]uint32]int{} // in found, of each filesystem
	for line := range strings.Lines(string(raw)) {
		m, major, minor, ok := parseMount(line)
		number := [2]uint32{major, minor}
		i, seen := at[number]
		if !ok || seen && !found[i].hidden {
			continue
		}
		if seen { // at another place
			if m.hidden = !m.leads(); !m.hidden {
				found[i] = m
			}
			continue
		}
		if major == 0 { // a filesystem with a number of its own, as btrfs has: its source tells
			var stat unix.Stat_t
			if !strings.HasPrefix(m.Source, "/dev/") || unix.Stat(m.Source, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFBLK {
				continue
			}
			major, minor = unix.Major(stat.Rdev), unix.Minor(stat.Rdev)
		}
		if slices.ContainsFunc(leaves(major, minor), func(name string) bool { return wanted[name] }) {
			at[number], m.hidden = len(found), !m.leads()
			found = append(found, m)
		}
	}
	slices.Reverse(found)
	return found, nil
}

// leads tells whether the directory leads to the mount. What may lie over it is neither
// opened nor asked for: it can be a server that does not answer.
func (m Mount) leads() bool {
	return m.isAt(unix.AT_FDCWD, m.Dir, unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC)
}

// isAt tells whether a path, or an open directory if that is empty, is of the mount. A
// kernel that does not tell (before 5.8) is believed to have led there.
func (m Mount) isAt(dir int, path string, flags int) bool {
	var stat unix.Statx_t
	err := unix.Statx(dir, path, flags, unix.STATX_MNT_ID, &stat)
	return err != nil || stat.Mask&unix.STATX_MNT_ID == 0 || stat.Mnt_id == m.id
}

// parseMount reads a line of mountinfo; ok is false for what cannot be written.
//
//	36 35 98:0 /root /dir rw,noatime master:1 - ext3 /dev/root rw,errors=continue
func parseMount(line string) (m Mount, major, minor uint32, ok bool) {
	before, after, found := strings.Cut(line, " - ")
	head, tail := strings.Fields(before), strings.Fields(after)
	if !found || len(head) < 6 || len(tail) < 3 {
		return m, 0, 0, false
	}
	if m.id, _ = strconv.ParseUint(head[0], 10, 64); m.id == 0 {
		return m, 0, 0, false
	}
	if n, err := fmt.Sscanf(head[2], "%d:%d", &major, &minor); n != 2 || err != nil {
		return m, 0, 0, false
	}
	options := strings.Split(tail[2], ",")
	m.Dir, m.Type, m.Source = unescape(head[4]), tail[0], unescape(tail[1])
	return m, major, minor, slices.Contains(options, "rw")
}

// unescape undoes the \040 of mountinfo.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// leaves names the whole disks that a block device lies on, itself if it is one.
func leaves(major, minor uint32) []string {
	dir, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", major, minor))
	if err != nil {
		return nil
	}
	return leavesOf(dir)
}

func leavesOf(dir string) []string {
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	slaves, err := os.ReadDir(filepath.Join(dir, "slaves"))
	if err != nil || len(slaves) == 0 {
		return []string{filepath.Base(dir)}
	}
	var names []string
	for _, s := range slaves {
		if below, err := filepath.EvalSymlinks(filepath.Join(dir, "slaves", s.Name())); err == nil {
			names = append(names, leavesOf(below)...)
		}
	}
	return names
}
