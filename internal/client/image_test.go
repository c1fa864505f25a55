package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/diskstream"
	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/iam"
	"lifeboat/internal/server/export"
	"lifeboat/internal/vault"
)

// runs is a disk that arrives in pieces, then ends with err.
type runs struct {
	size int64
	data map[int64]string
	at   []int64 // the order of data
	err  error
}

func (r *runs) Size() int64 { return r.size }

func (r *runs) Next() (int64, []byte, error) {
	if len(r.at) == 0 {
		return 0, nil, r.err
	}
	off := r.at[0]
	r.at = r.at[1:]
	return off, []byte(r.data[off]), nil
}

func (r *runs) whole() []byte {
	out := make([]byte, r.size)
	for off, data := range r.data {
		copy(out[off:], data)
	}
	return out
}

func disk(err error) *runs {
	return &runs{
		size: 8<<20 + 512, at: []int64{100, 4096, 1 << 20, 8 << 20}, err: err,
		data: map[int64]string{
			100: "head", 4096: strings.Repeat("\x00", 4096) + strings.Repeat("x", 5000) + strings.Repeat("\x00", 8192),
			1 << 20: strings.Repeat("\x00", 1<<20), 8 << 20: strings.Repeat("t", 512),
		},
	}
}

func none(int64, int64) {}

func TestSaveImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	var reached int64
	source := disk(io.EOF)
	saved, err := SaveImage(t.Context(), durable.Files{}, source, path, false, func(at, _ int64) { reached = at })
	must(t, err)
	got, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, source.whole()) || saved.Bytes != source.size || reached != source.size {
		t.Errorf("the image differs from the disk, or %+v and %d do not count it", saved, reached)
	}
	var stat unix.Stat_t
	must(t, unix.Stat(path, &stat))
	if used := stat.Blocks * 512; used > 128<<10 {
		t.Errorf("the image takes %d bytes of disk: zeros are not holes", used)
	}
	if mode := os.FileMode(stat.Mode) & 0o777; mode != 0o600 {
		t.Errorf("mode %o: others can read the disk", mode)
	}

	_, err = SaveImage(t.Context(), durable.Files{}, disk(io.EOF), path, false, none)
	if !errors.Is(err, ErrOutputExists) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("an existing file: %v, want a refusal with the way out", err)
	}
	other := &runs{size: 3, at: []int64{0}, data: map[int64]string{0: "abc"}, err: io.EOF}
	_, err = SaveImage(t.Context(), durable.Files{}, other, path, true, none)
	must(t, err)
	if got, err := os.ReadFile(path); err != nil || string(got) != "abc" {
		t.Errorf("with force: %q, %v; want the new image", got, err)
	}
	if _, err := SaveImage(t.Context(), durable.Files{}, disk(io.EOF), os.DevNull, true, none); err == nil {
		t.Error("a device was replaced by a file")
	}
}

// TestSaveImageIsAllOrNothing fails every step once: the output is then as it
// was, and nothing else is left.
func TestSaveImageIsAllOrNothing(t *testing.T) {
	for _, replace := range []bool{false, true} {
		for name, c := range map[string]struct {
			files durable.Files
			disk  *runs
		}{
			"cut stream":    {disk: disk(diskstream.ErrTruncated)},
			"sender's end":  {disk: disk(&diskstream.SenderError{Message: "damage"})},
			"failed sync":   {files: failing("export: sync"), disk: disk(io.EOF)},
			"failed create": {files: failing("export: create"), disk: disk(io.EOF)},
			"failed place":  {files: failing("export: place"), disk: disk(io.EOF)},
		} {
			dir := t.TempDir()
			path := filepath.Join(dir, "disk.raw")
			if replace {
				must(t, os.WriteFile(path, []byte("before"), 0o600))
			}
			if _, err := SaveImage(t.Context(), c.files, c.disk, path, replace, none); err == nil {
				t.Errorf("%s: no error", name)
			}
			entries, err := os.ReadDir(dir)
			must(t, err)
			got, err := os.ReadFile(path)
			if replace && (len(entries) != 1 || string(got) != "before") {
				t.Errorf("%s: the earlier file is %q (%v) among %d", name, got, err, len(entries))
			} else if !replace && len(entries) != 0 {
				t.Errorf("%s: %v is left behind", name, entries)
			}
		}
	}
}

// failing makes the operations of one label fail, as a full disk does.
func failing(op string) durable.Files {
	return durable.Files{Fault: func(o, path string, do func() error) error {
		if o == op {
			return &fs.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
		}
		return do()
	}}
}

// TestSaveImageWithoutLinks does as on a file system that has none.
func TestSaveImageWithoutLinks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.raw")
	tried := 0
	files := durable.Files{Fault: func(op, at string, do func() error) error {
		if tried++; op == "export: place" {
			if _, err := os.Lstat(at); errors.Is(err, fs.ErrNotExist) && tried == 3 {
				return &os.LinkError{Op: "link", New: at, Err: syscall.EPERM}
			}
		}
		return do()
	}}
	source := disk(io.EOF)
	_, err := SaveImage(t.Context(), files, source, path, false, none)
	must(t, err)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, source.whole()) {
		t.Errorf("the image is not there, whole: %v", err)
	}
}

func TestStreamImage(t *testing.T) {
	var out bytes.Buffer
	source := disk(io.EOF)
	_, err := StreamImage(&out, source, none)
	must(t, err)
	if !bytes.Equal(out.Bytes(), source.whole()) {
		t.Error("the stream differs from the disk")
	}
	if _, err := StreamImage(io.Discard, disk(diskstream.ErrTruncated), none); !errors.Is(err, diskstream.ErrTruncated) {
		t.Errorf("a cut stream: %v", err)
	}
}

// memoryDisk is a disk of the server's side.
type memoryDisk struct{ *bytes.Reader }

func (d memoryDisk) Close() error { return nil }
func (d memoryDisk) Extents(_ context.Context, off, n int64) ([]vault.Span, error) {
	return []vault.Span{{Offset: off, Length: n}}, nil
}

// TestDisk fetches a disk from the real handler behind a real signature check.
func TestDisk(t *testing.T) {
	s := newSite(t)
	server := s.addServer("db1")
	point := s.addPoint(server, time.Now(), drs.CrashConsistent)
	want := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	keys, err := s.client.api.Options().Credentials.Retrieve(t.Context())
	must(t, err)
	verifier := &iam.Verifier{Service: "drs", Region: home.Region, Keys: iam.NewKeyring(iam.AccessKey{
		ID: keys.AccessKeyID, Secret: iam.Secret(keys.SecretAccessKey), Principal: iam.RootOf(home),
	})}
	type account struct{}
	disks := export.Handler(
		func(_ context.Context, of drs.SourceServer, at drs.RecoverySnapshotID, n int) (export.Disk, error) {
			if of.ID != server.ID || at != point.ID {
				return nil, vault.ErrAbsent
			}
			return memoryDisk{bytes.NewReader(want)}, nil
		}, s.db, func(ctx context.Context) (drs.Account, bool) {
			a, ok := ctx.Value(account{}).(drs.Account)
			return a, ok
		}, slog.New(slog.DiscardHandler))
	s.also("/lifeboat/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := verifier.Verify(r.Context(), r, nil)
		if err != nil {
			t.Errorf("the request is not signed well: %v", err)
		}
		disks.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), account{}, key.Account)))
	}))

	stream, err := s.client.Disk(t.Context(), string(server.ID), string(point.ID), 0)
	must(t, err)
	var got bytes.Buffer
	_, err = StreamImage(&got, stream, none)
	must(t, errors.Join(err, stream.Close()))
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("the disk differs from the one on the server")
	}
	_, err = s.client.Disk(t.Context(), string(server.ID), string(drs.NewRecoverySnapshotID()), 0)
	wantRefusal(t, err, "ResourceNotFoundException", "lifeboat points")
}
