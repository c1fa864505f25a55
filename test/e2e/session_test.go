package e2e

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
)

// session is one qemu-io, QEMU's block layer without a machine, that stays
// connected to a disk through whatever becomes of the server.
type session struct {
	in  io.Writer
	out *bufio.Reader
}

func newSession(t *testing.T, socket, export string) *session {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "qemu-io", "--image-opts",
		fmt.Sprintf("driver=nbd,server.type=unix,server.path=%s,export=%s,reconnect-delay=60", socket, export))
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
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s := &session{in, bufio.NewReader(out)}
	if said, err := s.prompt(); err != nil {
		t.Fatalf("qemu-io ended: %v: %s", err, said)
	}
	return s
}

// prompt reads until qemu-io wants the next command. It must not come earlier: what
// lies in qemu-io's buffer is not looked at before more arrives.
func (s *session) prompt() (said string, err error) {
	const mark = "qemu-io> "
	var b strings.Builder
	for !strings.HasSuffix(b.String(), mark) {
		c, err := s.out.ReadByte()
		if err != nil {
			return b.String(), err
		}
		b.WriteByte(c)
	}
	return strings.TrimSuffix(b.String(), mark), nil
}

// do runs a command, which must say want.
func (s *session) do(command, want string) error {
	if _, err := io.WriteString(s.in, command+"\n"); err != nil {
		return err
	}
	said, err := s.prompt()
	if err != nil {
		return fmt.Errorf("%s: %w, after %q", command, err, said)
	}
	if !strings.Contains(said, want) || strings.Contains(said, "failed") || strings.Contains(said, "rror") {
		return fmt.Errorf("%s: qemu-io said %q", command, said)
	}
	return nil
}

const sessionSlots = 64

func slotOffset(slot int) int { return 1<<20 + slot*12<<10 }

// write writes and flushes at random places until enough, and returns what must
// be at each of them.
func (s *session) write(random *rand.Rand, enough func(n int) bool) (held map[int]int, err error) {
	held = map[int]int{}
	for n := 0; !enough(n); n++ {
		slot, pattern := random.IntN(sessionSlots), 1+n%250
		commands := []string{fmt.Sprintf("write -P %d %d 12k", pattern, slotOffset(slot)), "flush"}
		switch n % 4 {
		case 0: // durable with its answer
			commands = []string{fmt.Sprintf("write -f -P %d %d 12k", pattern, slotOffset(slot))}
		case 1:
			commands[0], pattern = fmt.Sprintf("write -z %d 12k", slotOffset(slot)), 0
		}
		for _, c := range commands {
			if err := s.do(c, ""); err != nil {
				return held, err
			}
		}
		held[slot] = pattern
	}
	return held, nil
}

func (s *session) check(t *testing.T, held map[int]int) {
	t.Helper()
	for slot, pattern := range held {
		if err := s.do(fmt.Sprintf("read -P %d %d 12k", pattern, slotOffset(slot)), "read 12288/12288"); err != nil {
			t.Error(err)
		}
	}
}

// The server is killed at any moment of a long session that writes and flushes.
// The session never sees an error, and everything that was flushed is there in
// the end: for the session itself, for a new one, and after another kill.
func TestASessionOutlivesItsServer(t *testing.T) {
	if _, err := exec.LookPath("qemu-io"); err != nil {
		t.Skip("qemu-io is not installed (Debian: qemu-utils)")
	}
	in := install(t)
	image, _ := knownImage(t)
	agent, server := in.startAgent(t, image, "--hostname", "long")
	agent.kill()
	// A disk without a machine: nobody else writes there.
	if _, err := in.drs.UpdateLaunchConfiguration(t.Context(), &drs.UpdateLaunchConfigurationInput{
		SourceServerID: aws.String(server), LaunchDisposition: types.LaunchDispositionStopped,
	}); err != nil {
		t.Fatal(err)
	}
	instance := in.launched(t, in.recover(t, server, false))
	socket, export := filepath.Join(in.dir, "disks.sock"), instance+"/0"

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 0))
	s := newSession(t, socket, export)
	killed, written := make(chan struct{}), make(chan error, 1)
	var held map[int]int
	var writes int
	go func() {
		var err error
		held, err = s.write(rand.New(rand.NewPCG(seed, 1)), func(n int) bool {
			writes = n
			select {
			case <-killed:
				return n >= 200
			default:
				return false
			}
		})
		written <- err
	}()
	const kills = 5
	for range kills {
		// Not synchronisation: the moment of the kill is what is varied.
		time.Sleep(time.Duration(moments.IntN(400)) * time.Millisecond)
		in.server.kill()
		in.startServer(t)
	}
	close(killed)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	s.check(t, held)
	in.server.kill()
	in.startServer(t)
	s.check(t, held)
	newSession(t, socket, export).check(t, held)
	t.Logf("%d writes, %d kills", writes, kills+1)
}
