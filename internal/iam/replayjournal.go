package iam

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

// replayJournal keeps the signatures of Replays in two files, one for each of its
// generations, so that they outlive the process. They are handed to the operating
// system one by one: a power cut can lose the last ones, the end of the process
// cannot. When a file cannot be written the journal ends, and the memory goes on
// without it: a full disk must not stop a recovery. docs/formats/signatures.md
// describes the bytes.
type replayJournal struct {
	path string // of the newer generation; the older one's has olderSuffix
	file *os.File
	log  *slog.Logger
}

const (
	replayMagic  = "lbsigs01"
	replayRecord = 8 + sha256.Size // when, in ms since 1970, big-endian; hash
	olderSuffix  = ".old"
	// maxJournal is more than the file of a generation ever has.
	maxJournal = int64(len(replayMagic)) + 2*maxSeen*replayRecord
)

// OpenReplays returns a memory that remembers what those before it kept in the file.
// Files that cannot be understood are begun anew, and told to the log. Only one
// process may have the file open.
func OpenReplays(path string, now time.Time, log *slog.Logger) (*Replays, error) {
	m := &Replays{began: now, new: map[[sha256.Size]byte]struct{}{}}
	text := []byte(replayMagic)
	for _, name := range []string{path + olderSuffix, path} {
		records, err := readJournal(name)
		var damaged *DamagedError
		if errors.As(err, &damaged) {
			log.Warn("signatures of changes before this start may be accepted again for some minutes", "err", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		for ; len(records) >= replayRecord; records = records[replayRecord:] { // the last one may be torn
			at := time.UnixMilli(int64(binary.BigEndian.Uint64(records)))
			if now.Sub(at) > replayWindow {
				continue
			}
			m.new[[sha256.Size]byte(records[8:replayRecord])] = struct{}{}
			text = append(text, records[:replayRecord]...)
		}
	}
	// Whole or not at all: what is read is never lost on the way.
	if err := files.WriteFile("keep signatures", path, text, private); err != nil {
		return nil, err
	}
	if err := files.Remove("keep signatures", path+olderSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, private)
	if err != nil {
		return nil, fmt.Errorf("keep signatures: %w", err)
	}
	m.journal = &replayJournal{path: path, file: file, log: log}
	return m, nil
}

// Close ends the journal; the memory may be used on without it.
func (m *Replays) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.journal
	if j == nil || j.file == nil {
		return nil
	}
	file := j.file
	j.file = nil
	return errors.Join(file.Sync(), file.Close())
}

// readJournal returns the records of a file, none of one that is not there.
func readJournal(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxJournal {
		return nil, &DamagedError{Path: path, Reason: fmt.Sprintf("want a regular file of at most %d bytes", maxJournal)}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	if len(text) < len(replayMagic) || string(text[:len(replayMagic)]) != replayMagic {
		return nil, &DamagedError{Path: path, Reason: "it does not begin with " + replayMagic}
	}
	return text[len(replayMagic):], nil
}

// note keeps one signature. The memory's lock is held.
func (j *replayJournal) note(hash [sha256.Size]byte, at time.Time) {
	if j == nil || j.file == nil {
		return
	}
	record := binary.BigEndian.AppendUint64(make([]byte, 0, replayRecord), uint64(at.UnixMilli()))
	j.settle(files.Write("keep signature", j.file, append(record, hash[:]...)))
}

// turn begins the file of a new generation. The memory's lock is held.
func (j *replayJournal) turn() {
	if j == nil || j.file == nil {
		return
	}
	err := errors.Join(j.file.Close(), files.Rename("turn signatures", j.path, j.path+olderSuffix))
	j.file = nil
	if err == nil {
		if j.file, err = files.Create("begin signatures", j.path, private); err == nil {
			err = files.Write("begin signatures", j.file, []byte(replayMagic))
		}
	}
	j.settle(err)
}

// settle ends the journal after an error.
func (j *replayJournal) settle(err error) {
	if err == nil {
		return
	}
	if j.file != nil {
		_ = j.file.Close() // told below
		j.file = nil
	}
	j.log.Warn("signatures of changes are kept in memory only until the next start", "file", j.path, "err", err)
}
