package ebpf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Filesystem is where the kernel's BPF filesystem is mounted by convention. What is
// pinned there is gone after a reboot.
const Filesystem = "/sys/fs/bpf"

// pins are what a tracker has in a directory of a BPF filesystem, so that the kernel
// goes on marking when the agent has ended:
//
//	about                     what is tracked, and the caller's note; made last and removed first
//	kept, kept-0, kept-1, ... what was handed out and not settled, see kept
//	link-NAME                 a program at its tracepoint
//	NAME                      the maps of track.c
type pins struct {
	dir   string
	lock  *os.File // of the directory
	note  []byte
	about *ebpf.Map
	flags memory   // kept.all by slot, a word each
	words []memory // kept.words by slot
	maps  []*ebpf.Map
}

// pinned are the maps of track.c that a successor needs.
var pinned = []string{"disks", "slots", "control", "states", "bitmaps", "barrier"}

// layout is raised whenever a version cannot use what another has pinned: with the
// maps' shapes or meaning, or for a program that must be replaced.
const layout = 1

// about is the content of the map of that name, as JSON with zeros behind it.
type about struct {
	Layout int
	Shift  uint
	Disks  []aboutDisk // by slot
	Note   []byte
}

type aboutDisk struct {
	Number         uint32
	Size           int64
	Sequence       uint64
	Fine, Capacity int64 // words of a bitmap: of its fine part, and in all
}

const aboutSize = 16 << 10

// NoteMost is the longest note that Settle takes, in bytes.
const NoteMost = 4 << 10

// PinError: the tracker cannot outlive its process.
type PinError struct {
	Dir string
	Err error
}

func (e *PinError) Error() string { return fmt.Sprintf("ebpf tracker: pin in %s: %v", e.Dir, e.Err) }
func (e *PinError) Unwrap() error { return e.Err }

// OpenPinned is Open with a tracker that outlives its process: it takes over the one
// that is pinned in the directory, of a BPF filesystem, if that tracks these very
// disks, and begins a new one else. Where nothing can be pinned, and where another
// process has this tracker, the error is a *PinError, and nothing is tracked.
func OpenPinned(dir string, disks []Disk) (*Tracker, error) {
	t := &Tracker{}
	if err := t.locate(disks); err != nil {
		return nil, err
	}
	err := mountFilesystem(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, &PinError{dir, err}
	}
	lock, err := lockPins(dir)
	if err != nil {
		return nil, &PinError{dir, err}
	}
	t.pins = &pins{dir: dir, lock: lock}
	if t.adopt(dir) == nil {
		return t, nil
	}
	t.pins.lock = nil
	_ = t.Close() // of what was taken over in part
	t = &Tracker{pins: &pins{dir: dir, lock: lock}}
	if err = t.locate(disks); err == nil {
		if err = emptyPins(dir); err != nil {
			err = &PinError{dir, err}
		}
	}
	if err == nil {
		err = t.begin()
	}
	if err == nil {
		err = t.pin(dir)
	}
	if err != nil {
		_ = t.Close()       // the first error is the one that counts
		_ = RemovePins(dir) // likewise
		return nil, err
	}
	return t, nil
}

// lockPins keeps other processes from the directory: two with one tracker would each
// miss what the other one takes.
func lockPins(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another agent has this tracker: stop it first")
		}
		return nil, err
	}
	return f, nil
}

// unlockPins lets go at once, also while a program is being started and holds a copy.
func unlockPins(lock *os.File) {
	if lock != nil {
		_ = unix.Flock(int(lock.Fd()), unix.LOCK_UN) // closing unlocks, too, if later
		lock.Close()
	}
}

// RemovePins ends a tracker that no process has open. It is no error if there is none.
func RemovePins(dir string) error {
	lock, err := lockPins(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer unlockPins(lock)
		err = emptyPins(dir)
	}
	if err == nil {
		err = os.Remove(dir)
	}
	if err != nil {
		return fmt.Errorf("ebpf tracker: remove pins: %w", err)
	}
	return nil
}

// emptyPins removes all that is in the directory, first what makes it whole.
func emptyPins(dir string) error {
	if err := os.Remove(filepath.Join(dir, "about")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if removed := os.Remove(filepath.Join(dir, e.Name())); removed != nil {
			err = removed
		}
	}
	return err
}

// Adopted tells whether the tracker was taken over, and the note of its last Settle,
// nil if there was none.
func (t *Tracker) Adopted() (note []byte, yes bool) {
	if t.pins == nil || !t.adopted {
		return nil, false
	}
	return t.pins.note, true
}

// Settle says that all that Swaps have returned has been dealt with, as the note
// says, which it is kept with: a successor finds both or neither. Of a tracker that
// is not pinned it does nothing.
func (t *Tracker) Settle(note []byte) error {
	// In this order: with the new note and the old marks too much is read, no more.
	if err := t.Note(note); err != nil || t.pins == nil {
		return err
	}
	for _, w := range t.whole {
		w.kept.forget()
	}
	return nil
}

// Note replaces the note of the last Settle, for what stands beside it as before.
func (t *Tracker) Note(note []byte) error {
	if t.pins == nil {
		return nil
	}
	if len(note) > NoteMost {
		return fmt.Errorf("ebpf tracker: a note of %d bytes is longer than %d", len(note), NoteMost)
	}
	if err := t.describe(note); err != nil {
		return &PinError{t.pins.dir, err}
	}
	return nil
}

// describe writes the map about.
func (t *Tracker) describe(note []byte) error {
	a := about{Layout: layout, Shift: t.whole[0].geometry.shift, Note: note}
	for _, w := range t.whole {
		a.Disks = append(a.Disks, w.about())
	}
	raw, err := json.Marshal(a)
	if err != nil {
		return err
	}
	value := make([]byte, aboutSize)
	if copy(value, raw) < len(raw) {
		return fmt.Errorf("%d bytes are more than %d", len(raw), aboutSize)
	}
	t.pins.note = note
	return t.pins.about.Put(uint32(0), value)
}

func (w *whole) about() aboutDisk {
	return aboutDisk{w.number, w.size, w.sequence, w.geometry.fineWords(), w.geometry.words()}
}

// pin makes a tracker that has just begun outlive this process.
func (t *Tracker) pin(dir string) (err error) {
	defer func() {
		if err != nil {
			err = &PinError{dir, err}
		}
	}()
	for _, w := range t.whole {
		if w.sequence == 0 {
			return fmt.Errorf("the kernel (before Linux 5.15) does not tell %s from a disk that takes its name later", w.name)
		}
	}
	made := map[string]*ebpf.MapSpec{"kept": wordsSpec("kept", maxDisks, 0)}
	for slot, w := range t.whole {
		made[keptName(slot)] = wordsSpec("kept", keptWords(w.size), 0)
	}
	for name, spec := range made {
		m, err := ebpf.NewMap(spec)
		if err == nil {
			t.pins.maps = append(t.pins.maps, m)
			err = m.Pin(filepath.Join(dir, name))
		}
		if err != nil {
			return err
		}
	}
	if err := t.openKept(); err != nil {
		return err
	}
	for _, w := range t.whole {
		w.kept.addAll()
	}
	for _, name := range pinned {
		if err := t.programs.maps[name].Pin(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for _, name := range attached {
		if err := t.programs.links[name].Pin(filepath.Join(dir, "link-"+name)); err != nil {
			return err
		}
	}
	t.pins.about, err = ebpf.NewMap(&ebpf.MapSpec{Name: "about", Type: ebpf.Array, KeySize: 4, ValueSize: aboutSize, MaxEntries: 1})
	if err == nil {
		err = t.describe(nil)
	}
	if err == nil {
		err = t.pins.about.Pin(filepath.Join(dir, "about"))
	}
	return err
}

func keptName(slot int) string { return fmt.Sprintf("kept-%d", slot) }

// openKept makes what is kept seen here.
func (t *Tracker) openKept() (err error) {
	open := func(name string, words int64) (memory, error) {
		m, err := ebpf.LoadPinnedMap(filepath.Join(t.pins.dir, name), nil)
		if err != nil {
			return memory{}, err
		}
		t.pins.maps = append(t.pins.maps, m)
		if int64(m.MaxEntries()) != words {
			return memory{}, fmt.Errorf("%s has %d words, not %d", name, m.MaxEntries(), words)
		}
		return mapMemory(m, words)
	}
	if t.pins.flags, err = open("kept", maxDisks); err != nil {
		return err
	}
	for slot, w := range t.whole {
		words, err := open(keptName(slot), keptWords(w.size))
		if err != nil {
			return err
		}
		t.pins.words = append(t.pins.words, words)
		w.kept = kept{t.pins.flags.half(2 * slot), words.words}
	}
	return nil
}

// adopt takes over what is pinned. Any error means that it cannot be.
func (t *Tracker) adopt(dir string) (err error) {
	if t.pins.about, err = ebpf.LoadPinnedMap(filepath.Join(dir, "about"), nil); err != nil {
		return err
	}
	raw, err := t.pins.about.LookupBytes(uint32(0))
	if err != nil {
		return err
	}
	var a about
	if err := json.Unmarshal(bytes.TrimRight(raw, "\x00"), &a); err != nil {
		return err
	}
	if a.Layout != layout || len(a.Disks) != len(t.whole) {
		return errors.New("other disks, or of another version")
	}
	t.programs = &programs{maps: map[string]*ebpf.Map{}, links: map[string]link.Link{}}
	for _, name := range pinned {
		if t.programs.maps[name], err = ebpf.LoadPinnedMap(filepath.Join(dir, name), nil); err != nil {
			delete(t.programs.maps, name)
			return err
		}
	}
	for _, name := range attached {
		if t.programs.links[name], err = link.LoadPinnedLink(filepath.Join(dir, "link-"+name), nil); err != nil {
			delete(t.programs.links, name)
			return err
		}
	}
	if err := t.mapStates(); err != nil {
		return err
	}
	for slot, w := range t.whole {
		err := t.open(slot, w, a.Shift, func(buffer int) (m *ebpf.Map, err error) {
			err = t.programs.maps["bitmaps"].Lookup(uint32(slot*2+buffer), &m)
			return m, err
		})
		if err != nil {
			return err
		}
		if w.sequence == 0 || w.about() != a.Disks[slot] {
			return fmt.Errorf("%s is another disk than the one that was tracked", w.name)
		}
	}
	if err := t.openKept(); err != nil {
		return err
	}
	if err := t.touchHeads(); err != nil {
		return err
	}
	t.pins.note, t.adopted = a.Note, true
	return t.recoverSwap()
}

// recoverSwap keeps what a Swap has left that did not come to its end.
func (t *Tracker) recoverSwap() error {
	t.active = *t.control.half(0) & 1
	if err := t.settle(); err != nil {
		return err
	}
	for _, w := range t.whole {
		words := w.buffers[t.active^1].words
		w.kept.add(w.geometry.ranges(words))
		wipe(words)
		w.state.clean(t.active ^ 1)
	}
	return nil
}

func (p *pins) close() {
	if p == nil {
		return
	}
	p.flags.unmap()
	for i := range p.words {
		p.words[i].unmap()
	}
	for _, m := range append(p.maps, p.about) {
		if m != nil {
			_ = m.Close() // its pin stays
		}
	}
	unlockPins(p.lock)
}

// mountFilesystem sees to it that a directory is, or will be, on a BPF filesystem.
func mountFilesystem(dir string) error {
	kind := func() (int64, error) {
		var s unix.Statfs_t
		at := dir
		err := unix.Statfs(at, &s)
		for errors.Is(err, unix.ENOENT) && at != filepath.Dir(at) {
			at = filepath.Dir(at)
			err = unix.Statfs(at, &s)
		}
		return int64(s.Type), err
	}
	is, err := kind()
	if err == nil && is != unix.BPF_FS_MAGIC && strings.HasPrefix(dir, Filesystem+"/") {
		if err := unix.Mount("bpf", Filesystem, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
			return fmt.Errorf("mount the BPF filesystem on %s: %w", Filesystem, err)
		}
		is, err = kind()
	}
	if err == nil && is != unix.BPF_FS_MAGIC {
		err = errors.New("this is no BPF filesystem")
	}
	return err
}
