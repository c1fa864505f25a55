package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lifeboat/internal/vault/blob/s3/s3test"
)

// readyz is what the server tells whoever watches over it.
func (in *installation) readyz(t *testing.T) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, in.env["AWS_ENDPOINT_URL"]+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := in.drs.Options().HTTPClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return response.Status + " " + string(text)
}

// storeFault is what befalls the store of a vault.
type storeFault struct {
	name string
	// harm does it and returns how to undo it.
	harm func() (mend func())
	// says is what the API, /readyz and so the log tell; next is what to do.
	says, next string
	readable   bool // points can be read all the same: the server stays ready
}

// bears runs faults one after the other against a server whose agent replicates: each is
// told with its next step, and all goes on by itself, complete, once it is mended.
func (in *installation) bears(t *testing.T, agent *process, server, image string, faults []storeFault) {
	t.Helper()
	for i, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			mend := f.harm()
			scribble(t, image, uint64(100+i))
			told := func() {
				defer mend()
				in.waitError(t, f.says)
				in.waitError(t, f.next)
				eventually(t, "/readyz tells of it", func() (string, bool) {
					text := in.readyz(t)
					return text, f.readable == strings.HasPrefix(text, "200") && (f.readable || strings.Contains(text, f.says))
				})
			}
			told()
			in.waitEqual(t, server, image)
			in.waitContinuous(t, agent)
			eventually(t, "/readyz tells that all is well", func() (string, bool) {
				text := in.readyz(t)
				return text, strings.HasPrefix(text, "200")
			})
		})
	}
	must(t, "vault", "verify", "--data", in.dir)
}

// What befalls a bucket is told in words that lead on, and ends by itself.
func TestFaultsOfABucket(t *testing.T) {
	store := s3test.Start(t)
	in := installAt(t, filepath.Join(t.TempDir(), "data"), "--vault", store.Location().String())
	image := randomImage(t, 16, 31)
	agent, server := in.startAgent(t, image, "--hostname", "far")
	answers := func(status int, code string) func() func() {
		return func() func() {
			store.Around(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				w.Header().Set("Content-Type", "application/xml")
				w.WriteHeader(status)
				fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message><BucketName>vault</BucketName></Error>", code)
			})
			return func() { store.Around(nil) }
		}
	}
	in.bears(t, agent, server, image, []storeFault{
		{"it is overloaded", answers(503, "SlowDown"), "the vault's store cannot be reached or is overloaded (503 SlowDown", "look whether the store runs", false},
		{"it fails", answers(500, "InternalError"), "the vault's store cannot be reached or is overloaded (500 InternalError", "goes on by itself", false},
		{"its keys are revoked", answers(403, "InvalidAccessKeyId"), "the vault's store does not accept the server's keys", "renew AWS_ACCESS_KEY_ID", false},
		{"a policy denies all", answers(403, "AccessDenied"), "the vault's store denies access", "allow the server's keys to list, read, create and delete", false},
		{"the bucket is gone", answers(404, "NoSuchBucket"), "the place of the vault is gone (there is no bucket vault", "put the directory or bucket back", false},
		{"a clock is wrong", answers(403, "RequestTimeTooSkewed"), "the clock of the server's host and that of the vault's store differ too much", "set the clock", false},
		{"it hangs", store.Freeze, "the vault's store has not answered for 1", "goes on by itself when it answers", false},
	})
}

// ext4 makes a small file system of a kind that people use, and mounts it.
func ext4(t *testing.T, mib int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system to fill and to freeze")
	}
	file, dir := filepath.Join(t.TempDir(), "disk.img"), t.TempDir()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, mib<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", "-m", "0", file}, {"mount", "-o", "loop", file, dir}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// What befalls the file system of a vault likewise.
func TestFaultsOfADirectory(t *testing.T) {
	disk := ext4(t, 192)
	vault, away := filepath.Join(disk, "vault"), filepath.Join(disk, "away")
	in := installAt(t, filepath.Join(t.TempDir(), "data"), "--vault", "file:"+vault)
	image := randomImage(t, 16, 32)
	agent, server := in.startAgent(t, image, "--hostname", "near")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	freeze := func(request uint) {
		t.Helper()
		f, err := os.Open(disk)
		check(err)
		defer f.Close()
		check(unix.IoctlSetInt(int(f.Fd()), request, 0))
	}
	const fifreeze, fithaw = 0xC0045877, 0xC0045878
	in.bears(t, agent, server, image, []storeFault{
		{"it is full", func() func() {
			filler := filepath.Join(disk, "filler")
			f, err := os.Create(filler)
			check(err)
			defer f.Close()
			for block := make([]byte, 64<<10); ; {
				if _, err := f.Write(block); err != nil {
					if block = block[:len(block)/2]; len(block) == 0 {
						break
					}
				}
			}
			return func() { check(os.Remove(filler)) }
		}, "the vault is full", "free or add space where the vault lies", true},
		{"it is not mounted", func() func() {
			check(os.Rename(vault, away))
			check(os.Mkdir(vault, 0o700))
			return func() {
				check(os.Remove(vault))
				check(os.Rename(away, vault))
			}
		}, "the place of the vault is gone (" + vault, "mount its file system again", false},
		{"it hangs", func() func() {
			freeze(fifreeze)
			return func() { freeze(fithaw) }
		}, "the vault's store has not answered for 1", "goes on by itself when it answers", false},
	})
}
