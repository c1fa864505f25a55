package replication

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// examples has one of each message, with every field set.
func examples() []Message {
	at := time.Unix(1700000000, 123456789).UTC()
	return []Message{
		&Hello{MinVersion: 1, MaxVersion: 1, Software: "lifeboat-agent 1.0", Instance: [16]byte{1, 2, 3}},
		&Welcome{Version: 1, HeadNumber: 7, HeadHash: [32]byte{0xaa, 0xbb}, DigestSeed: 0x0123456789abcdef, Sealed: true,
			PointTaken: at, Credit: 8 << 20, Settings: Config{EpochSpacing: 5 * time.Second, ThrottleMbps: 100}, Software: "lifeboat 1.0"},
		&Disks{Disks: []Disk{{Device: "/dev/sda", Size: 1 << 30}, {Device: "/dev/sdb", Size: 512}}},
		&Disks{Disks: []Disk{{Device: "/dev/sda", Size: 1 << 30, Identity: "serial:S3Z1"}, {Device: "/dev/sdb", Size: 512}}},
		&Disks{Disks: []Disk{{Device: "/dev/sda", Size: 1 << 30, State: DiskComplete}, {Device: "/dev/sdb", Size: 512, State: DiskLeft}}},
		&Disks{Disks: []Disk{{Device: "/dev/sda", Size: 1 << 30}}, DropOthers: true},
		&Volumes{Volumes: []Volume{{ID: 0, Known: true}, {ID: 3, Apart: true}}},
		&Volumes{Volumes: []Volume{{ID: 0, Known: true}, {ID: 3}}},
		&DigestRequest{Volume: 1, First: 8192, Count: 100},
		&Digests{Volume: 1, First: 8192, Digests: [][16]byte{{1}, {2}}},
		&Begin{Epoch: 9, Restart: true},
		&Data{Volume: 1, Codec: CodecS2, RawLen: 8192, Digest: [16]byte{9, 8, 7}, Extents: []Extent{{16, 1}, {18, 1}}, Payload: []byte("packed")},
		&Zero{Volume: 1, Block: 32, Count: 16},
		&Commit{Epoch: 9, Point: true, Consistency: ConsistencyCrash, Method: MethodQuietPass, Request: 5, Expected: at, Taken: at.Add(time.Second)},
		&Commit{Epoch: 9, Point: true, Consistency: ConsistencyFilesystem, Method: MethodFrozen, Taken: at, Freeze: 83 * time.Millisecond},
		&Ack{Epoch: 9, HeadNumber: 8, HeadHash: [32]byte{1}, Point: "pit-0123456789abcdef0"},
		&Refused{Epoch: 9, RetryAfter: 2 * time.Second, Text: "the vault is full", NextStep: "free space"},
		&Credit{Bytes: 65536},
		&CreditRequest{},
		&PointRequest{Request: 5},
		&Config{EpochSpacing: time.Second, ThrottleMbps: 8},
		&Config{EpochSpacing: time.Second, HoldNewDisks: true},
		&Welcome{Version: 3, Credit: 8 << 20, Settings: Config{HoldNewDisks: true}, Software: "lifeboat 1.0"},
		&Welcome{Version: 4, Author: [16]byte{4, 5, 6}, Credit: 8 << 20, Settings: Config{HoldNewDisks: true}, Software: "lifeboat 1.0"},
		&Heartbeat{AsOf: at},
		&Progress{Phase: PhaseStalled, Disks: []DiskProgress{{1 << 30, 65536}}, Text: "disk /dev/sda is gone", NextStep: "attach it"},
		&Inventory{JSON: []byte(`{"hostname":"db1"}`)},
		&Error{Code: CodeSuperseded, Text: "another agent", NextStep: "stop one"},
		&Bye{Reason: "the agent stops"},
		&Renewal{CSR: "-----BEGIN"},
		&Certificate{PEM: "-----BEGIN", Text: "not now"},
	}
}

func frame(t testing.TB, m Message) []byte {
	t.Helper()
	var b bytes.Buffer
	var scratch []byte
	if err := writeFrame(&b, m, &scratch); err != nil {
		t.Fatalf("%T: %v", m, err)
	}
	return b.Bytes()
}

func TestEveryMessageComesBack(t *testing.T) {
	kinds := map[Kind]bool{}
	for _, m := range examples() {
		kinds[m.kind()] = true
		got, err := readFrame(bytes.NewReader(frame(t, m)))
		if err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		if d, ok := got.(*Data); ok {
			d.buf = nil
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("got %+v, want %+v", got, m)
		}
	}
	for k := range 256 {
		if _, err := newMessage(Kind(k)); (err == nil) != kinds[Kind(k)] {
			t.Errorf("kind %d: known %v, has an example %v", k, err == nil, kinds[Kind(k)])
		}
	}
}

// The first bytes of a session are frozen: an agent and a server of any two
// versions must be able to refuse each other politely.
func TestHelloBytesAreFrozen(t *testing.T) {
	const hello = "01000000" + "20000000" + "910fd1e3" + // kind, length 32, CRC-32C
		"4c494645424f4154" + // LIFEBOAT
		"0100" + "0100" + // versions 1 to 1
		"01020300000000000000000000000000" + // instance
		"0200" + "6c62" // software "lb"
	got := frame(t, &Hello{MinVersion: 1, MaxVersion: 1, Instance: [16]byte{1, 2, 3}, Software: "lb"})
	if hex.EncodeToString(got) != hello {
		t.Errorf("hello is\n%x, was\n%s", got, hello)
	}
	const refusal = "13000000" + "13000000" + "1e1d9ea9" +
		"0300" + "0300" + "6f6c64" + "0a00" + "75706772616465206974"
	if got := frame(t, &Error{Code: CodeVersion, Text: "old", NextStep: "upgrade it"}); hex.EncodeToString(got) != refusal {
		t.Errorf("error is\n%x, was\n%s", got, refusal)
	}
	// A later version may append to both.
	for _, m := range []Message{&Hello{MinVersion: 1, MaxVersion: 9}, &Error{Code: 77, Text: "new"}} {
		e := encoder{}
		m.encode(&e)
		d := decoder{b: append(e.b, "more"...)}
		back, _ := newMessage(m.kind())
		if back.decode(&d); d.err != nil || len(d.b) > 0 {
			t.Errorf("%T with more at its end: %v", m, d.err)
		}
	}
}

func TestDamageIsNoticed(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, m := range examples() {
		good := frame(t, m)
		for range 200 {
			bad := bytes.Clone(good)
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			if got, err := readFrame(bytes.NewReader(bad)); err == nil {
				t.Fatalf("%T: a flipped bit went through as %+v", m, got)
			}
		}
		for n := range good {
			_, err := readFrame(bytes.NewReader(good[:n]))
			if want := io.ErrUnexpectedEOF; n == 0 && !errors.Is(err, io.EOF) || n > 0 && !errors.Is(err, want) {
				t.Fatalf("%T cut at %d of %d: %v", m, n, len(good), err)
			}
		}
	}
}

func TestLimitsAreHeld(t *testing.T) {
	long := strings.Repeat("x", MaxDevice+1)
	for name, m := range map[string]Message{
		"device":  &Disks{Disks: []Disk{{Device: long, Size: 1}}},
		"disks":   &Disks{Disks: make([]Disk, MaxDisks+1)},
		"payload": &Data{Extents: []Extent{{0, 16}}, RawLen: 65536, Payload: make([]byte, MaxData+1)},
		"extents": &Data{Extents: make([]Extent, MaxExtents+1), Payload: []byte{1}},
		"digests": &Digests{Digests: make([][16]byte, MaxPayload/16)},
		"json":    &Inventory{JSON: make([]byte, MaxInventory+1)},
	} {
		var b bytes.Buffer
		var scratch []byte
		if err := writeFrame(&b, m, &scratch); err == nil {
			t.Errorf("%s: over the limit and sent", name)
		}
	}
	// A length field alone must not make the receiver allocate or wait for it.
	huge := []byte{byte(KindInventory), 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0}
	if _, err := readFrame(bytes.NewReader(huge)); !errors.Is(err, ErrMalformed) {
		t.Errorf("frame of 2 GiB: %v", err)
	}
	for name, m := range map[string]Message{
		"no blocks":      &Data{RawLen: 0, Payload: []byte{1}},
		"no payload":     &Data{Extents: []Extent{{0, 1}}, RawLen: 4096},
		"raw length":     &Data{Extents: []Extent{{0, 1}}, RawLen: 4095, Payload: []byte{1}},
		"blocks":         &Data{Extents: []Extent{{0, 17}}, RawLen: 17 * 4096, Payload: []byte{1}},
		"codec":          &Data{Extents: []Extent{{0, 1}}, RawLen: 4096, Codec: 3, Payload: []byte{1}},
		"credit":         &Welcome{Credit: MaxData},
		"consistency":    &Commit{Point: true, Taken: time.Now()},
		"taken":          &Commit{Point: true, Consistency: ConsistencyCrash},
		"phase":          &Progress{},
		"digest request": &DigestRequest{Count: MaxDigests + 1},
		"versions":       &Hello{MinVersion: 2, MaxVersion: 1},
	} {
		if got, err := readFrame(bytes.NewReader(frame(t, m))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, m := range examples() {
		f.Add(frame(f, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		// What was accepted can be said again, and means the same.
		again := frame(t, m)
		back, err := readFrame(bytes.NewReader(again))
		if err != nil {
			t.Fatalf("%+v does not come back: %v", m, err)
		}
		for _, m := range []Message{m, back} {
			if d, ok := m.(*Data); ok {
				d.buf = nil
				d.Payload = bytes.Clone(d.Payload)
			}
		}
		if !reflect.DeepEqual(m, back) {
			t.Fatalf("%+v came back as %+v", m, back)
		}
	})
}

// FuzzDecode reaches the decoders past the checksum.
func FuzzDecode(f *testing.F) {
	for _, m := range examples() {
		e := encoder{}
		m.encode(&e)
		f.Add(uint8(m.kind()), e.b)
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		m, err := newMessage(Kind(kind))
		if err != nil || len(b) > MaxPayload {
			return
		}
		d := decoder{b: b}
		m.decode(&d)
		if d.err != nil && !errors.Is(d.err, ErrMalformed) {
			t.Fatalf("error of another kind: %v", d.err)
		}
		if d.err == nil && len(d.b) == 0 {
			frame(t, m)
		}
	})
}
