package diskstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Writer sends one disk. After any error it is finished and returns that error
// again. Not safe for concurrent use.
type Writer struct {
	w       io.Writer
	size    int64
	next    int64 // the lowest offset that may follow
	bytes   uint64
	records uint64
	err     error
}

// NewWriter begins the stream of a disk of size bytes.
func NewWriter(w io.Writer, size int64) (*Writer, error) {
	if size < 0 || size > MaxSize {
		return nil, fmt.Errorf("disk stream of %d bytes: want 0 to %d", size, int64(MaxSize))
	}
	s := &Writer{w: w, size: size}
	if s.write(appendHeader(nil, size)); s.err != nil {
		return nil, s.err
	}
	return s, nil
}

// Data sends the bytes at off, at most MaxData of them, at or after the end of
// what was sent before.
func (s *Writer) Data(off int64, p []byte) error {
	switch {
	case s.err != nil:
		return s.err
	case len(p) == 0 || len(p) > MaxData || off < s.next || off > s.size-int64(len(p)):
		s.err = fmt.Errorf("disk stream: record of %d bytes at %d breaks the order or the disk's size", len(p), off)
		return s.err
	}
	s.record(uint64(off), p)
	s.next = off + int64(len(p))
	s.bytes += uint64(len(p))
	s.records++
	return s.err
}

// End says that everything was sent. The stream takes nothing more.
func (s *Writer) End() error {
	totals := binary.LittleEndian.AppendUint64(nil, s.bytes)
	return s.finish(endMark, binary.LittleEndian.AppendUint64(totals, s.records))
}

// Fail says in place of End why the rest will not come. The reason is for the
// user at the other end.
func (s *Writer) Fail(reason string) error {
	if len(reason) > maxMessage {
		reason = reason[:maxMessage]
	}
	return s.finish(failMark, []byte(reason))
}

func (s *Writer) finish(mark uint64, p []byte) error {
	if s.err != nil {
		return s.err
	}
	s.record(mark, p)
	err := s.err
	s.err = errors.Join(err, errors.New("disk stream: it has ended"))
	return err
}

func (s *Writer) record(offset uint64, p []byte) {
	var head [recordHead]byte
	binary.LittleEndian.PutUint64(head[:], offset)
	binary.LittleEndian.PutUint32(head[8:], uint32(len(p)))
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, p)
	s.write(head[:])
	s.write(p)
	s.write(binary.LittleEndian.AppendUint32(nil, sum))
}

func (s *Writer) write(p []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
}
