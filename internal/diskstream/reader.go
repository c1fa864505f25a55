package diskstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf8"
)

// Reader receives one disk. It trusts nothing of what it reads and allocates
// never more than one record of MaxData. Not safe for concurrent use.
type Reader struct {
	r       io.Reader
	at      int64 // bytes of the stream read
	size    int64
	next    int64
	bytes   uint64
	records uint64
	buf     []byte
	err     error
}

// NewReader reads the stream's header: *CorruptError when it is none,
// ErrTruncated when it ends within.
func NewReader(r io.Reader) (*Reader, error) {
	s := &Reader{r: r}
	head := make([]byte, headerSize)
	if err := s.read(head); err != nil {
		return nil, err
	}
	size, err := parseHeader(head)
	if err != nil {
		return nil, err
	}
	s.size = size
	return s, nil
}

// Size is the disk's, in bytes.
func (s *Reader) Size() int64 { return s.size }

// Next returns the next run of data and its place on the disk; data is good
// until the next call. Everything between two runs is zeros. It returns io.EOF
// only after the end record said that nothing is missing. Other errors:
// ErrTruncated, *CorruptError, *SenderError, or the underlying reader's.
func (s *Reader) Next() (off int64, data []byte, err error) {
	if s.err != nil {
		return 0, nil, s.err
	}
	off, data, s.err = s.readRecord()
	return off, data, s.err
}

func (s *Reader) readRecord() (int64, []byte, error) {
	begin := s.at
	corrupt := func(format string, args ...any) (int64, []byte, error) {
		return 0, nil, &CorruptError{At: begin, Reason: fmt.Sprintf(format, args...)}
	}
	var head [recordHead]byte
	if err := s.read(head[:]); err != nil {
		return 0, nil, err
	}
	offset, length := binary.LittleEndian.Uint64(head[:]), int64(binary.LittleEndian.Uint32(head[8:]))
	switch {
	case offset == endMark && length != endSize,
		offset == failMark && length > maxMessage,
		offset < failMark && (length == 0 || length > MaxData):
		return corrupt("a record claims %d bytes", length)
	case offset < failMark && (offset < uint64(s.next) || offset > uint64(s.size) || length > s.size-int64(offset)):
		return corrupt("a record of %d bytes at %d is out of order or beyond the disk's end", length, offset)
	}
	if s.buf == nil {
		s.buf = make([]byte, MaxData+recordTail)
	}
	body := s.buf[:length+recordTail]
	if err := s.read(body); err != nil {
		return 0, nil, err
	}
	data := body[:length:length]
	if crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, data) != binary.LittleEndian.Uint32(body[length:]) {
		return corrupt("a record's checksum is wrong")
	}
	switch offset {
	case failMark:
		if !utf8.Valid(data) {
			return corrupt("the sender's reason is not text")
		}
		return 0, nil, &SenderError{string(data)}
	case endMark:
		bytes, records := binary.LittleEndian.Uint64(data), binary.LittleEndian.Uint64(data[8:])
		if bytes != s.bytes || records != s.records {
			return corrupt("%d bytes in %d records came, %d in %d were sent", s.bytes, s.records, bytes, records)
		}
		return 0, nil, s.expectEnd()
	}
	s.next = int64(offset) + length
	s.bytes += uint64(length)
	s.records++
	return int64(offset), data, nil
}

// expectEnd makes sure that nothing follows, which also lets a decompressor
// below check its own end.
func (s *Reader) expectEnd() error {
	switch _, err := io.ReadFull(s.r, make([]byte, 1)); {
	case err == nil:
		return &CorruptError{At: s.at, Reason: "bytes follow the end record"}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return ErrTruncated
	default:
		return err // io.EOF, or what went wrong
	}
}

func (s *Reader) read(p []byte) error {
	n, err := io.ReadFull(s.r, p)
	s.at += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return err
}
