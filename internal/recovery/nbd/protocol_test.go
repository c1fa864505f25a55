package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"lifeboat/internal/recovery/nbd"
)

func TestExportName(t *testing.T) {
	d := newFileDevice(t, 1<<20+3)
	_, socket := startServer(t, nbd.Config{Open: exports(forms(d))})

	c := dial(t, socket)
	c.option(1, []byte("full"))
	got := c.take(10) // no padding: the client said NO_ZEROES
	if size := binary.BigEndian.Uint64(got); size != 1<<20+3 {
		t.Errorf("size %d", size)
	}
	if code := c.code(false, 0, 3, 0, 0, nil); code != 0 {
		t.Errorf("flush: %d", code)
	}

	c = dial(t, socket)
	c.option(1, []byte("absent"))
	c.gone()
}

func TestOptionRefusals(t *testing.T) {
	d := newFileDevice(t, 1<<20)
	_, socket := startServer(t, nbd.Config{Open: func(_ context.Context, name string) (*nbd.Export, error) {
		switch name {
		case "disk":
			return &nbd.Export{Device: d}, nil
		case "broken":
			return nil, errors.New("vault is away")
		}
		return nil, nbd.ErrUnknownExport
	}})
	const unsup, policy, invalid, unknown, tooBig = 1<<31 + 1, 1<<31 + 2, 1<<31 + 3, 1<<31 + 6, 1<<31 + 9
	c := dial(t, socket)
	for _, tc := range []struct {
		what string
		opt  uint32
		data []byte
		want uint32
	}{
		{"TLS where there is none", 5, nil, policy},
		{"an option nobody knows", 4711, []byte("xyz"), unsup},
		{"list without a lister", 3, nil, policy},
		{"list with data", 3, []byte{1}, invalid},
		{"structured reply with data", 8, []byte{1}, invalid},
		{"context before structured replies", 10, contextData("disk", "base:allocation"), invalid},
		{"go without data", 7, nil, invalid},
		{"go with a name longer than the data", 7, encode(uint32(4096), "abc", uint16(0)), invalid},
		{"go with a name of 4 GiB", 7, encode(uint32(1<<32-1), "abc", uint16(0)), invalid},
		{"go with more wishes than data", 7, encode(uint32(1), "a", uint16(9), uint16(0)), invalid},
		{"go with bytes too many", 7, encode(uint32(1), "a", uint16(0), "z"), invalid},
		{"go with a name that is not UTF-8", 7, infoData("\xff\xfe"), invalid},
		{"go with a name over the limit", 7, infoData(strings.Repeat("n", 4097)), invalid},
		{"go to an unknown export", 7, infoData("absent"), unknown},
		{"info of an unknown export", 6, infoData("absent"), unknown},
		{"go to an export that fails to open", 7, infoData("broken"), unknown},
		{"an option of 1 MiB", 6, make([]byte, 1<<20), tooBig},
		{"structured replies", 8, nil, 1},
		{"context query longer than the data", 10, encode(uint32(4), "disk", uint32(1), uint32(99), "base:"), invalid},
		{"4 billion queries", 10, encode(uint32(4), "disk", uint32(1<<32-1)), invalid},
		{"context with bytes too many", 10, append(contextData("disk"), 1), invalid},
		{"context of an unknown export", 10, contextData("absent", "base:allocation"), unknown},
		{"unknown contexts are ignored", 10, contextData("disk", "base:other", "qemu:dirty-bitmap:b", "nonsense"), 1},
		{"list of all contexts", 9, contextData("disk"), 1},
		{"info, every wish twice", 6, infoData("disk", 0, 1, 2, 3, 3, 2, 1, 0, 99), 1},
	} {
		if got := c.ask(tc.opt, tc.data); got != tc.want {
			t.Errorf("%s: reply %#x, want %#x", tc.what, got, tc.want)
		}
	}
	c.enter("disk", true) // and the connection is as good as new
	if code := c.code(true, 0, 0, 0, 4096, nil); code != 0 {
		t.Errorf("read: %d", code)
	}
}

func TestBrokenFramingEndsTheConnection(t *testing.T) {
	d := newFileDevice(t, 1<<20)
	_, socket := startServer(t, nbd.Config{Open: exports(forms(d))})
	for what, do := range map[string]func(c *client){
		"option magic":          func(c *client) { c.put("NOTMAGIC", uint64(0)) },
		"export name too long":  func(c *client) { c.option(1, bytes.Repeat([]byte("n"), 4097)) },
		"export name enormous":  func(c *client) { c.option(1, make([]byte, 1<<20)) },
		"abort":                 func(c *client) { c.ask(2, nil) },
		"request magic":         func(c *client) { c.enter("full", false); c.put(uint64(1), uint64(2), uint64(3), uint32(4)) },
		"write beyond payloads": func(c *client) { c.enter("full", false); c.request(0, 1, 1, 0, 32<<20+1, nil) },
		"disconnect":            func(c *client) { c.enter("full", false); c.request(0, 2, 1, 0, 0, nil) },
	} {
		t.Run(what, func(t *testing.T) {
			c := dial(t, socket)
			do(c)
			c.gone()
		})
	}
	// An old client flag word that nobody knows.
	c := dial(t, socket)
	_ = c
	c2 := &client{t, mustDial(t, socket)}
	c2.take(18)
	c2.put(uint32(0x80000003))
	c2.gone()
}

func TestRequestRefusals(t *testing.T) {
	const perm, inval, nospc = 1, 22, 28
	d := newFileDevice(t, 1<<20)
	_, socket := startServer(t, nbd.Config{Open: exports(forms(d))})
	const read, write, flush, trim, zeroes, status = 0, 1, 3, 4, 6, 7
	for _, tc := range []struct {
		what, export string
		flags, cmd   uint16
		off          uint64
		n            uint32
		want         uint32
	}{
		{"read past the end", "full", 0, read, 1<<20 - 10, 11, inval},
		{"read at an offset that wraps", "full", 0, read, 1<<64 - 1, 2, inval},
		{"read of nothing at the end", "full", 0, read, 1 << 20, 0, 0},
		{"write past the end", "full", 0, write, 1<<20 - 10, 11, nospc},
		{"zero past the end", "full", 0, zeroes, 1 << 20, 1, nospc},
		{"trim past the end", "full", 0, trim, 1 << 20, 1, inval},
		{"write of nothing", "full", 0, write, 5, 0, 0},
		{"flush with a range", "full", 0, flush, 1, 1, inval},
		{"flush with FUA, as some clients do", "full", 1, flush, 0, 0, 0},
		{"read with a flag of writes", "full", 2, read, 0, 1, inval},
		{"unknown flag", "full", 1 << 15, write, 0, 10, inval},
		{"unknown command", "full", 0, 99, 0, 10, inval},
		{"resize", "full", 0, 8, 0, 10, inval},
		{"trim where there is none", "plain", 0, trim, 0, 10, inval},
		{"fast zero where there is none", "plain", 16, zeroes, 0, 4096, 95},
		{"slow zero", "plain", 0, zeroes, 0, 1 << 20, 0},
		{"write to read-only", "readonly", 0, write, 0, 10, perm},
		{"trim of read-only", "readonly", 0, trim, 0, 10, perm},
		{"zero of read-only", "readonly", 0, zeroes, 0, 10, perm},
		{"flush of read-only", "readonly", 0, flush, 0, 0, 0},
		{"status of nothing", "full", 0, status, 0, 0, inval},
		{"status past the end", "full", 0, status, 1 << 20, 1, inval},
	} {
		for _, structured := range []bool{false, true} {
			c := dial(t, socket)
			c.enter(tc.export, structured)
			var payload []byte
			if tc.cmd == write {
				payload = make([]byte, tc.n)
			}
			if got := c.code(structured, tc.flags, tc.cmd, tc.off, tc.n, payload); got != tc.want {
				t.Errorf("%s (structured %v): code %d, want %d", tc.what, structured, got, tc.want)
			}
			if got := c.code(structured, 0, read, 0, 512, nil); got != 0 {
				t.Errorf("%s (structured %v): the next read: code %d", tc.what, structured, got)
			}
		}
	}
}

// TestHolesInReplies pins the bytes of a sparse read.
func TestHolesInReplies(t *testing.T) {
	d := newFileDevice(t, 1<<20)
	data := bytes.Repeat([]byte("x"), 8192)
	if _, err := d.WriteAt(data, 65536); err != nil {
		t.Fatal(err)
	}
	_, socket := startServer(t, nbd.Config{Open: exports(forms(d))})
	c := dial(t, socket)
	c.enter("full", true)
	c.request(0, 0, 42, 0, 1<<17, nil)
	var got []string
	for done := false; !done; {
		cookie, kind, last, data := c.chunk()
		off := binary.BigEndian.Uint64(data)
		got = append(got, fmt.Sprintf("%d %d %d %d", cookie, kind, off, len(data)-8))
		done = last
	}
	want := "42 2 0 4|42 1 65536 8192|42 2 73728 4"
	if strings.Join(got, "|") != want {
		t.Errorf("chunks %q, want %s", got, want)
	}
	// With DF there is one chunk.
	c.request(4, 0, 43, 0, 1<<17, nil)
	if cookie, kind, last, data := c.chunk(); cookie != 43 || kind != 1 || !last || len(data) != 8+1<<17 {
		t.Errorf("DF: cookie %d, kind %d, last %v, %d bytes", cookie, kind, last, len(data))
	}
	// One status only when one is asked for.
	c.request(8, 7, 44, 1000, 1<<17, nil)
	if _, kind, last, data := c.chunk(); kind != 5 || !last || !bytes.Equal(data, encode(uint32(1), uint32(64536), uint32(3))) {
		t.Errorf("status: kind %d, last %v, %x", kind, last, data)
	}
}

// faultyDevice fails as told.
type faultyDevice struct {
	*fileDevice
	err error
}

func (d faultyDevice) WriteAt([]byte, int64) (int, error) { return 0, d.err }
func (d faultyDevice) ReadAt([]byte, int64) (int, error)  { return 0, d.err }
func (d faultyDevice) Flush(context.Context) error        { return d.err }

func TestDeviceErrorsReachTheClient(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want uint32
	}{
		{syscall.ENOSPC, 28},
		{fmt.Errorf("append: %w", syscall.EDQUOT), 28},
		{syscall.EROFS, 1},
		{io.ErrUnexpectedEOF, 5},
		{errors.New("checksum"), 5},
	} {
		d := faultyDevice{newFileDevice(t, 1<<20), tc.err}
		_, socket := startServer(t, nbd.Config{Open: exports(map[string]*nbd.Export{"": {Device: d}})})
		for _, structured := range []bool{false, true} {
			c := dial(t, socket)
			c.enter("", structured)
			for _, cmd := range []uint16{1, 0, 3} {
				n := uint32(4096)
				var payload []byte
				switch cmd {
				case 1:
					payload = make([]byte, n)
				case 3:
					n = 0
				}
				if got := c.code(structured, 0, cmd, 0, n, payload); got != tc.want {
					t.Errorf("%v: command %d gives %d, want %d", tc.err, cmd, got, tc.want)
				}
			}
		}
	}
}
