package qemu

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// scripted is a connection whose peer has said everything already, and takes no notice.
type scripted struct{ io.Reader }

func (scripted) Write(p []byte) (int, error)      { return len(p), nil }
func (scripted) Close() error                     { return nil }
func (scripted) LocalAddr() net.Addr              { return nil }
func (scripted) RemoteAddr() net.Addr             { return nil }
func (scripted) SetDeadline(time.Time) error      { return nil }
func (scripted) SetReadDeadline(time.Time) error  { return nil }
func (scripted) SetWriteDeadline(time.Time) error { return nil }

func optionReply(option, kind uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicOptionReply)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, kind)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
}

func chunk(cookie uint64, flags, kind uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicStructured)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, cookie)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
}

// conversation is what a sound server says to one read and one question for its status.
func conversation() []byte {
	var b []byte
	b = append(b, "NBDMAGICIHAVEOPT\x00\x03"...)
	b = append(b, optionReply(optStructured, replyAck, nil)...)
	b = append(b, optionReply(optSetContext, replyContext, append([]byte{0, 0, 0, 9}, "c"...))...)
	b = append(b, optionReply(optSetContext, replyAck, nil)...)
	b = append(b, optionReply(optGo, replyInfo, append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 64, 0}, 0, 1))...)
	b = append(b, optionReply(optGo, replyAck, nil)...)
	data := binary.BigEndian.AppendUint64(nil, 512)
	b = append(b, chunk(1, 0, chunkData, append(data, bytes.Repeat([]byte("d"), 100)...))...)
	hole := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, 612), 156)
	b = append(b, chunk(1, 1, chunkHole, hole)...)
	return append(b, chunk(2, 1, chunkStatus, []byte{0, 0, 0, 9, 0, 0, 0x20, 0, 0, 0, 0, 1})...)
}

// FuzzNBDServer lets a server say anything. It is refused, or what it said is within what
// was asked for.
func FuzzNBDServer(f *testing.F) {
	whole := conversation()
	f.Add(whole)
	f.Add(whole[:40])
	f.Add(bytes.Replace(whole, []byte("\x67\x44"), []byte("\x67\x45"), 1))
	f.Fuzz(func(t *testing.T, said []byte) {
		c := &client{nc: scripted{bytes.NewReader(said)}, contexts: map[string]uint32{}}
		if c.negotiate("disk", []string{"c"}) != nil {
			return
		}
		p := make([]byte, 256)
		if c.read(p, 512) != nil {
			return
		}
		const most = 8192
		extents, err := c.status("c", 0, most)
		if err != nil {
			return
		}
		var sum int64
		for _, e := range extents {
			if e.length <= 0 {
				t.Fatalf("extents %v", extents)
			}
			sum += e.length
		}
		if sum > most || len(extents) == 0 {
			t.Fatalf("%d bytes of status, asked for %d", sum, most)
		}
	})
}

// TestConversation: what the fuzzing starts from means something.
func TestConversation(t *testing.T) {
	c := &client{nc: scripted{bytes.NewReader(conversation())}, contexts: map[string]uint32{}}
	p := make([]byte, 256)
	if err := c.negotiate("disk", []string{"c"}); err != nil {
		t.Fatal(err)
	}
	if err := c.read(p, 512); err != nil || p[99] != 'd' || p[100] != 0 {
		t.Fatalf("%v, %q", err, p)
	}
	if got, err := c.status("c", 0, 8192); err != nil || len(got) != 1 || got[0] != (extent{8192, 1}) {
		t.Fatalf("%v, %v", got, err)
	}
}
