package nbd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/recovery/nbd"
)

// These tests let the programs that will use the server judge it.

func uri(socket, name string) string {
	return "nbd+unix:///" + name + "?socket=" + socket
}

// fillSparse gives the device random text with holes between, and returns the
// path of an identical file that the server does not touch.
func fillSparse(t *testing.T, d *fileDevice) string {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 100_000)
	for off := int64(0); off+int64(len(buf)) < d.size; off += 700_001 {
		for i := range buf {
			buf[i] = byte(rnd.Uint32())
		}
		if _, err := d.WriteAt(buf, off); err != nil {
			t.Fatal(err)
		}
	}
	copyPath := filepath.Join(t.TempDir(), "copy.raw")
	run(t, "cp", "--sparse=always", d.Name(), copyPath)
	return copyPath
}

// forms are the shapes an export of one device can have; clients must see the
// same bytes through all of them.
func forms(d *fileDevice) map[string]*nbd.Export {
	return map[string]*nbd.Export{
		"full":     {Device: d, Shared: true, Description: "every ability"},
		"single":   {Device: d},
		"plain":    {Device: plainDevice{d}},
		"readonly": {Device: d, ReadOnly: true},
	}
}

func TestQEMUImgReadsEveryForm(t *testing.T) {
	need(t, "qemu-img")
	for _, size := range []int64{16 << 20, 16<<20 + 512, 5_000_001} {
		d := newFileDevice(t, size)
		want := fillSparse(t, d)
		f := forms(d)
		_, socket := startServer(t, nbd.Config{Open: exports(f)})
		for name := range f {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "out.raw")
				run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri(socket, name), out)
				sameFile(t, out, want, size)
				run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", uri(socket, name), want)
			})
		}
	}
}

// sameFile compares n bytes; QEMU rounds a file's size up to a sector.
func sameFile(t *testing.T, got, want string, n int64) {
	t.Helper()
	g, err := os.ReadFile(got)
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(g)) < n || int64(len(w)) < n || !bytes.Equal(g[:n], w[:n]) {
		t.Errorf("%s differs from %s", got, want)
	}
}

func TestQEMUImgMapSeesHoles(t *testing.T) {
	need(t, "qemu-img")
	d := newFileDevice(t, 8<<20)
	if _, err := d.WriteAt(bytes.Repeat([]byte{1}, 1<<20), 2<<20); err != nil {
		t.Fatal(err)
	}
	_, socket := startServer(t, nbd.Config{Open: exports(forms(d))})
	var got []struct {
		Start, Length int64
		Data, Zero    bool
	}
	out := run(t, "qemu-img", "map", "--output=json", "-f", "raw", uri(socket, "full"))
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(got) != 3 || got[1].Start != 2<<20 || got[1].Length != 1<<20 || !got[1].Data || !got[0].Zero || got[0].Data || !got[2].Zero {
		t.Errorf("map of hole, data, hole = %+v", got)
	}
}

func TestQEMUIOWritesEveryForm(t *testing.T) {
	need(t, "qemu-io")
	for _, name := range []string{"full", "single", "plain"} {
		t.Run(name, func(t *testing.T) {
			d := newFileDevice(t, 8<<20)
			_, socket := startServer(t, nbd.Config{Open: exports(forms(d))})
			run(t, "qemu-io", "-f", "raw", uri(socket, name),
				"-c", "write -P 0x11 0 1M",
				"-c", "write -f -P 0x22 4096 4096",
				"-c", "write -P 0x33 777 1001",
				"-c", "write -z 8192 8192",
				"-c", "write -z -u 65536 65536",
				"-c", "discard 1M 64k",
				"-c", "aio_write -P 0x44 2M 64k",
				"-c", "aio_write -P 0x55 3M 64k",
				"-c", "aio_flush",
				"-c", "flush",
				"-c", "read -P 0x11 0 777",
				"-c", "read -P 0x33 777 1001",
				"-c", "read -P 0x22 4096 4096",
				"-c", "read -P 0 8192 8192",
				"-c", "read -P 0x11 16384 4096",
				"-c", "read -P 0 65536 65536",
				"-c", "read -P 0x11 131072 4096",
				"-c", "read -P 0x44 2M 64k",
				"-c", "read -P 0x55 3M 64k",
			)
			// What the client saw is what lies in the file.
			got := make([]byte, 3)
			for off, want := range map[int64]byte{0: 0x11, 777: 0x33, 4096: 0x22, 8192: 0, 70000: 0, 2 << 20: 0x44} {
				if _, err := d.ReadAt(got, off); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{want}, 3)) {
					t.Errorf("at %d: %x, %v; want %x", off, got, err, want)
				}
			}
		})
	}
}

func TestQEMUIORefusedOnReadOnly(t *testing.T) {
	need(t, "qemu-io")
	d := newFileDevice(t, 1<<20)
	_, socket := startServer(t, nbd.Config{Open: exports(forms(d))})
	run(t, "qemu-io", "-r", "-f", "raw", uri(socket, "readonly"), "-c", "read -P 0 0 4096")
}

func TestNBDInfo(t *testing.T) {
	need(t, "nbdinfo")
	d := newFileDevice(t, 1<<20+1)
	_, socket := startServer(t, nbd.Config{
		Open: exports(forms(d)),
		List: func(context.Context) ([]string, error) { return []string{"full", "plain"}, nil },
	})
	type export struct {
		Name      string `json:"export-name"`
		Size      int64  `json:"export-size"`
		ReadOnly  bool   `json:"is_read_only"`
		MultiConn bool   `json:"can_multi_conn"`
		Trim      bool   `json:"can_trim"`
		Zero      bool   `json:"can_zero"`
		FastZero  bool   `json:"can_fast_zero"`
		Flush     bool   `json:"can_flush"`
		FUA       bool   `json:"can_fua"`
		DF        bool   `json:"can_df"`
		Contexts  []string
		Min       int64 `json:"block_size_minimum"`
		Preferred int64 `json:"block_size_preferred"`
		Max       int64 `json:"block_size_maximum"`
	}
	ask := func(args ...string) []export {
		var got struct{ Exports []export }
		out := run(t, "nbdinfo", append([]string{"--json", "--no-content"}, args...)...)
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		for i := range got.Exports {
			e := &got.Exports[i]
			if e.Size != d.size || e.Min != 1 || e.Preferred != 4096 || e.Max != 32<<20 || !e.DF {
				t.Errorf("export %+v", e)
			}
			e.Size, e.Min, e.Preferred, e.Max, e.DF = 0, 0, 0, 0, false
		}
		return got.Exports
	}
	writable := export{Flush: true, FUA: true, Zero: true, FastZero: true, Trim: true, Contexts: []string{"base:allocation"}}
	full := writable
	full.MultiConn = true
	plain := writable
	plain.Trim, plain.Contexts = false, nil
	readonly := export{ReadOnly: true, MultiConn: true, Contexts: writable.Contexts}
	for name, want := range map[string]export{"full": full, "single": writable, "plain": plain, "readonly": readonly} {
		want.Name = name
		if got := ask(uri(socket, name)); len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
			t.Errorf("export %s\n got %+v\nwant %+v", name, got, want)
		}
	}
	if list := ask("--list", uri(socket, "")); len(list) != 2 || list[0].Name != "full" || list[1].Name != "plain" {
		t.Errorf("list = %+v", list)
	}
}

func TestNBDCopyBothWays(t *testing.T) {
	need(t, "nbdcopy")
	src := newFileDevice(t, 16<<20)
	want := fillSparse(t, src)
	_, from := startServer(t, nbd.Config{Open: exports(forms(src))})
	for _, name := range []string{"full", "single", "plain"} {
		t.Run(name, func(t *testing.T) {
			dst := newFileDevice(t, src.size)
			_, to := startServer(t, nbd.Config{Open: exports(forms(dst))})
			run(t, "nbdcopy", "--flush", uri(from, name), uri(to, name))
			sameFile(t, dst.Name(), want, src.size)
		})
	}
}

func TestFIOVerifies(t *testing.T) {
	need(t, "fio")
	if !strings.Contains(run(t, "fio", "--enghelp"), "nbd") {
		t.Skip("this fio has no nbd engine")
	}
	d := newFileDevice(t, 16<<20)
	_, socket := startServer(t, nbd.Config{Open: exports(forms(d))})
	run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+uri(socket, "full"), "--rw=randwrite", "--bsrange=512-64k",
		"--bs_unaligned", "--iodepth=32", "--size=16M", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--fsync=64", "--randseed=7")
}
