package guest

import (
	"fmt"
	"io"
)

// cpioWriter writes the "newc" archive format that Linux unpacks at boot
// (Documentation/driver-api/early-userspace/buffer-format.rst). The first error
// sticks and is returned by close.
type cpioWriter struct {
	w     io.Writer
	inode int
	err   error
}

const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
	cpioChar = 0o020000
	cpioLink = 0o120000
)

func newCPIO(w io.Writer) *cpioWriter { return &cpioWriter{w: w} }

func (c *cpioWriter) dir(name string) { c.entry(name, cpioDir|0o755, 0, 0, nil) }
func (c *cpioWriter) file(name string, mode uint32, data []byte) {
	c.entry(name, cpioFile|mode, 0, 0, data)
}
func (c *cpioWriter) charDevice(name string, major, minor uint32) {
	c.entry(name, cpioChar|0o600, major, minor, nil)
}

func (c *cpioWriter) close() error {
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	return c.err
}

func (c *cpioWriter) entry(name string, mode, major, minor uint32, data []byte) {
	if c.err != nil {
		return
	}
	c.inode++
	const links, owner, modified, checksum = 1, 0, 0, 0
	header := "070701"
	for _, field := range []uint32{
		uint32(c.inode), mode, owner, owner, links, modified, uint32(len(data)),
		0, 0, major, minor, uint32(len(name) + 1), checksum,
	} {
		header += fmt.Sprintf("%08x", field)
	}
	// Name and data each end on a multiple of four bytes.
	head := pad([]byte(header + name + "\x00"))
	if _, c.err = c.w.Write(head); c.err != nil {
		return
	}
	_, c.err = c.w.Write(pad(data))
}

func pad(data []byte) []byte {
	for len(data)%4 != 0 {
		data = append(data[:len(data):len(data)], 0)
	}
	return data
}
