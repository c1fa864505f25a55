package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"lifeboat/internal/db"
	"lifeboat/internal/diskstream"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

var (
	home  = drs.Account{ID: "111122223333", Region: "eu-west-1"}
	other = drs.Account{ID: "444455556666", Region: "eu-west-1"}
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// owner is a Servers with one server.
type owner struct {
	account drs.Account
	server  drs.SourceServerID
}

func (o owner) SourceServer(_ context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error) {
	if account != o.account || id != o.server {
		return drs.SourceServer{}, fmt.Errorf("look up: %w", db.ErrAbsent)
	}
	return drs.SourceServer{ID: id}, nil
}

// serve runs the handler for requests of the given account; nil is nobody.
func serve(t *testing.T, open OpenDisk, servers Servers, account *drs.Account) *httptest.Server {
	t.Helper()
	caller := func(context.Context) (drs.Account, bool) {
		if account == nil {
			return drs.Account{}, false
		}
		return *account, true
	}
	server := httptest.NewServer(Handler(open, servers, caller, slog.New(slog.DiscardHandler)))
	t.Cleanup(server.Close)
	return server
}

func path(server drs.SourceServerID, point drs.RecoverySnapshotID, disk any) string {
	return fmt.Sprintf("/lifeboat/v1/source-servers/%s/points/%s/disks/%v", server, point, disk)
}

// get asks for a disk as a client that decompresses itself.
func get(t *testing.T, url, encoding string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	r.Header.Set("Accept-Encoding", encoding)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	t.Cleanup(func() { answer.Body.Close() })
	return reply{answer.StatusCode, answer.Header, answer.Body}
}

type reply struct {
	status int
	header http.Header
	body   io.ReadCloser // closed when the test ends
}

// receive decodes a stream into a whole disk and the number of data bytes sent.
func receive(body io.Reader) (disk []byte, sent int, err error) {
	r, err := diskstream.NewReader(body)
	if err != nil {
		return nil, 0, err
	}
	disk = make([]byte, r.Size())
	for {
		off, data, err := r.Next()
		if errors.Is(err, io.EOF) {
			return disk, sent, nil
		}
		if err != nil {
			return nil, sent, err
		}
		sent += copy(disk[off:], data)
	}
}

// vaultWith makes a vault that holds two epochs of a server with two disks, the
// second of an odd size, and returns what both points must read as.
func vaultWith(t *testing.T, server drs.SourceServerID) (*vault.Vault, []drs.RecoverySnapshotID, [][2][]byte) {
	t.Helper()
	ctx := t.Context()
	store, err := blob.CreateDir(filepath.Join(t.TempDir(), "vault"))
	must(t, err)
	keys, err := vault.CreateKeyFile(filepath.Join(t.TempDir(), "key"))
	must(t, err)
	v, err := vault.Create(ctx, store, keys, vault.Options{})
	must(t, err)
	t.Cleanup(func() { v.Close() })
	must(t, v.CreateServer(ctx, server))
	w, err := v.Writer(ctx, server, vault.MainBranch)
	must(t, err)
	defer w.Close()

	volumes := []vault.Volume{{ID: 1, Device: "/dev/vda", Size: 24 << 20}, {ID: 2, Device: "/dev/vdb", Size: 3<<20 + 512}}
	now := [2][]byte{make([]byte, volumes[0].Size), make([]byte, volumes[1].Size)}
	rnd := rand.New(rand.NewPCG(1, 2))
	var points []drs.RecoverySnapshotID
	var want [][2][]byte
	for range 2 {
		e, err := w.Begin(ctx, volumes)
		must(t, err)
		for range 60 {
			n := rnd.IntN(2)
			vol := volumes[n]
			block := rnd.Uint64N(vol.Blocks())
			count := min(1+rnd.Uint64N(vault.FrameBlocks), vol.Blocks()-block)
			raw := make([]byte, count*vault.BlockSize)
			for i := range raw {
				raw[i] = byte(rnd.Uint32())
			}
			if end := int64(block+count) * vault.BlockSize; end > vol.Size {
				clear(raw[int64(len(raw))-(end-vol.Size):]) // beyond the end is padding
			}
			must(t, e.Append(vault.Frame{
				Volume: vol.ID, Extents: []vault.Extent{{Block: block, Count: uint32(count)}},
				Codec: vault.CodecRaw, RawLen: len(raw), Payload: raw,
			}))
			copy(now[n][block*vault.BlockSize:], raw)
		}
		point := drs.RecoveryPoint{
			ID: drs.NewRecoverySnapshotID(), SourceServer: server, Taken: time.Now(), Expected: time.Now(),
			Consistency: drs.CrashConsistent, Method: drs.QuietPass,
		}
		_, err = e.Commit(ctx, &point)
		must(t, err)
		points = append(points, point.ID)
		want = append(want, [2][]byte{bytes.Clone(now[0]), bytes.Clone(now[1])})
	}
	return v, points, want
}

func TestExportIsByteIdentical(t *testing.T) {
	server := drs.NewSourceServerID()
	v, points, want := vaultWith(t, server)
	site := serve(t, FromVault(v), owner{home, server}, &home)
	for n, point := range points {
		for disk := range 2 {
			for _, encoding := range []string{"identity", "gzip, zstd;q=0.5"} {
				answer := get(t, site.URL+path(server, point, disk), encoding)
				if answer.status != http.StatusOK || answer.header.Get("Content-Type") != diskstream.MediaType {
					t.Fatalf("point %d disk %d: %d %v", n, disk, answer.status, answer.header)
				}
				var body io.Reader = answer.body
				if compressed := answer.header.Get("Content-Encoding") == "zstd"; compressed != strings.Contains(encoding, "zstd") {
					t.Fatalf("asked for %q, compressed is %v", encoding, compressed)
				} else if compressed {
					decoder, err := zstd.NewReader(body)
					must(t, err)
					defer decoder.Close()
					body = decoder
				}
				got, sent, err := receive(body)
				must(t, err)
				if !bytes.Equal(got, want[n][disk]) {
					t.Errorf("point %d disk %d (%s): the image differs from what was stored", n, disk, encoding)
				}
				if disk == 0 && sent > len(got)/2 {
					t.Errorf("point %d disk 0: %d of %d bytes sent, though most are holes", n, sent, len(got))
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	server := drs.NewSourceServerID()
	v, points, _ := vaultWith(t, server)
	good := path(server, points[0], 0)
	for name, c := range map[string]struct {
		account *drs.Account
		target  string
		status  int
		kind    string
		word    string
	}{
		"nobody":            {nil, good, 403, "AccessDeniedException", "access key"},
		"another account":   {&other, good, 404, "ResourceNotFoundException", string(server)},
		"unknown server":    {&home, path(drs.NewSourceServerID(), points[0], 0), 404, "ResourceNotFoundException", "source-server"},
		"unknown point":     {&home, path(server, drs.NewRecoverySnapshotID(), 0), 404, "ResourceNotFoundException", "lifeboat points"},
		"no such disk":      {&home, path(server, points[0], 2), 404, "ResourceNotFoundException", "0 to 1"},
		"malformed server":  {&home, path("s-x", points[0], 0), 400, "ValidationException", "source server ID"},
		"malformed point":   {&home, path(server, "latest", 0), 400, "ValidationException", "recovery snapshot ID"},
		"malformed disk":    {&home, path(server, points[0], "one"), 400, "ValidationException", "count from 0"},
		"negative disk":     {&home, path(server, points[0], -1), 400, "ValidationException", "count from 0"},
		"something else":    {&home, "/lifeboat/v1/source-servers/" + string(server), 404, "UnknownOperationException", "disks"},
		"climbing upward":   {&home, path(server, points[0], "..%2f..%2fx"), 400, "ValidationException", "count from 0"},
		"a huge disk count": {&home, path(server, points[0], "99999999999999999999"), 400, "ValidationException", "count from 0"},
	} {
		t.Run(name, func(t *testing.T) {
			site := serve(t, FromVault(v), owner{home, server}, c.account)
			answer := get(t, site.URL+c.target, "identity")
			var body struct{ Message string }
			must(t, json.NewDecoder(answer.body).Decode(&body))
			if answer.status != c.status || answer.header.Get("X-Amzn-Errortype") != c.kind || !strings.Contains(body.Message, c.word) {
				t.Errorf("got %d %s %q, want %d %s with %q", answer.status, answer.header.Get("X-Amzn-Errortype"), body.Message, c.status, c.kind, c.word)
			}
		})
	}
}

// ramDisk is all data, and fails to read what lies at bad, if that is not 0.
type ramDisk struct {
	size, bad int64
	closed    chan struct{}
}

func (d *ramDisk) Size() int64  { return d.size }
func (d *ramDisk) Close() error { close(d.closed); return nil }
func (d *ramDisk) ReadAt(p []byte, off int64) (int, error) {
	if d.bad > 0 && off <= d.bad && d.bad < off+int64(len(p)) {
		return 0, &vault.CorruptError{}
	}
	for i := range p {
		p[i] = byte((off + int64(i)) >> 12)
	}
	return len(p), nil
}

func (d *ramDisk) Extents(_ context.Context, off, n int64) ([]vault.Span, error) {
	return []vault.Span{{Offset: off, Length: n}}, nil
}

func (d *ramDisk) open(context.Context, drs.SourceServer, drs.RecoverySnapshotID, int) (Disk, error) {
	return d, nil
}

func TestDamageIsTold(t *testing.T) {
	server := drs.NewSourceServerID()
	disk := &ramDisk{size: 64 << 20, bad: 40 << 20, closed: make(chan struct{})}
	site := serve(t, disk.open, owner{home, server}, &home)
	for _, encoding := range []string{"identity", "zstd"} {
		disk.closed = make(chan struct{})
		answer := get(t, site.URL+path(server, drs.NewRecoverySnapshotID(), 0), encoding)
		var body io.Reader = answer.body
		if encoding == "zstd" {
			decoder, err := zstd.NewReader(body)
			must(t, err)
			defer decoder.Close()
			body = decoder
		}
		_, sent, err := receive(body)
		var sender *diskstream.SenderError
		if !errors.As(err, &sender) || !strings.Contains(sender.Message, "restore the named object") {
			t.Errorf("%s: after %d bytes: %v, want the cause and the next step", encoding, sent, err)
		}
		<-disk.closed // or the test hangs: the point is held no longer
	}
}

// TestClientThatLeaves shows that an export nobody reads ends, and holds little
// memory while it waits.
func TestClientThatLeaves(t *testing.T) {
	server := drs.NewSourceServerID()
	disk := &ramDisk{size: 1 << 40, closed: make(chan struct{})}
	site := serve(t, disk.open, owner{home, server}, &home)
	var before, during runtime.MemStats
	runtime.ReadMemStats(&before)
	answer := get(t, site.URL+path(server, drs.NewRecoverySnapshotID(), 0), "identity")
	r, err := diskstream.NewReader(answer.body)
	must(t, err)
	for range 100 {
		_, _, err := r.Next()
		must(t, err)
	}
	runtime.GC()
	runtime.ReadMemStats(&during)
	if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("an export of 1 TiB holds %d MiB", grown>>20)
	}
	answer.body.Close()
	<-disk.closed
}

// TestPlanMergesSmallHoles holds what is read against what is there.
func TestPlanMergesSmallHoles(t *testing.T) {
	const k = 1 << 10
	var disk spans
	for n, length := range []int64{4 * k, 8 * k, 16 * k, 4 * k, 100 * k, 3 << 20} { // hole, data, hole, …
		at := int64(0)
		if n > 0 {
			at = disk.Size()
		}
		disk = append(disk, vault.Span{Offset: at, Length: length, Hole: n%2 == 0})
	}
	var got strings.Builder
	must(t, plan(t.Context(), disk, func(off, n int64) error {
		fmt.Fprintf(&got, "%d+%d ", off/k, n/k)
		return nil
	}))
	if want := "0+32 132+1024 1156+1024 2180+1024 "; got.String() != want {
		t.Errorf("plan %q, want %q", got.String(), want)
	}
}

// spans is a disk that only says where its data is.
type spans []vault.Span

func (s spans) Size() int64                       { last := s[len(s)-1]; return last.Offset + last.Length }
func (s spans) Close() error                      { return nil }
func (s spans) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (s spans) Extents(_ context.Context, off, n int64) (out []vault.Span, err error) {
	for _, span := range s {
		start, end := max(span.Offset, off), min(span.Offset+span.Length, off+n)
		if start < end {
			out = append(out, vault.Span{Offset: start, Length: end - start, Hole: span.Hole})
		}
	}
	return out, nil
}
