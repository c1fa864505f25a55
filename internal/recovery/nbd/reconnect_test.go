package nbd_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// fileServer runs this test binary as a server of the file and returns it when
// it accepts connections.
func fileServer(t *testing.T, file, socket string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(patience(t), os.Args[0])
	cmd.Env = append(os.Environ(), "NBD_TEST_FILE="+file, "NBD_TEST_SOCKET="+socket)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("server said %q, %v", line, err)
	}
	return cmd
}

// TestQEMUReconnects kills the server under QEMU's block layer and starts it
// again: requests made in between must succeed, and flushed data must be there.
func TestQEMUReconnects(t *testing.T) {
	need(t, "qemu-io")
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			d := newFileDevice(t, 4<<20)
			dir, err := os.MkdirTemp("", "nbd")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			socket := dir + "/s"
			server := fileServer(t, d.Name(), socket)

			q := startQEMUIO(t, "driver=nbd,server.type=unix,server.path="+socket+",reconnect-delay=60")
			q.do(t, "write -f -P 0x11 0 64k", "wrote 65536/65536")

			if err := server.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			server.Wait()
			q.send(t, "read -P 0x11 0 64k") // nobody listens now
			fileServer(t, d.Name(), socket)
			q.expect(t, "read 65536/65536")
			q.do(t, "write -P 0x22 1M 4k", "wrote 4096/4096")
			q.do(t, "read -P 0x22 1M 4k", "read 4096/4096")
		})
	}
}

// qemuIO is a qemu-io that takes commands one by one. The next one may be sent
// only when the last has printed something: a second line that arrives with the
// first lies unseen in qemu-io's buffer until a third comes.
type qemuIO struct {
	in  io.Writer
	out *bufio.Scanner
}

func startQEMUIO(t *testing.T, imageOpts string) *qemuIO {
	t.Helper()
	cmd := exec.CommandContext(patience(t), "qemu-io", "--image-opts", imageOpts)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &qemuIO{in, bufio.NewScanner(out)}
}

func (q *qemuIO) send(t *testing.T, command string) {
	t.Helper()
	if _, err := io.WriteString(q.in, command+"\n"); err != nil {
		t.Fatal(err)
	}
}

// do sends a command and waits for want in its output.
func (q *qemuIO) do(t *testing.T, command, want string) {
	t.Helper()
	q.send(t, command)
	q.expect(t, want)
}

func (q *qemuIO) expect(t *testing.T, want string) {
	t.Helper()
	for q.out.Scan() {
		line := q.out.Text()
		if strings.Contains(line, want) {
			return
		}
		if strings.Contains(line, "failed") || strings.Contains(line, "rror") {
			t.Fatalf("qemu-io said %q while %q was expected", line, want)
		}
	}
	t.Fatalf("qemu-io ended while %q was expected", want)
}
