package demo

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/demo/guest"
)

// What a shell makes of the export lines is what we must make of them.
func TestParseExportsAgreesWithShell(t *testing.T) {
	lines := `export AWS_ENDPOINT_URL='https://127.0.0.1:7443'
export AWS_SECRET_ACCESS_KEY='a+b/c=='
export AWS_CA_BUNDLE='/srv/it'\''s here/ca.pem'
`
	env := parseExports(lines)
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY", "AWS_CA_BUNDLE"} {
		want, err := exec.Command("sh", "-c", lines+`printf %s "$`+name+`"`).Output()
		if err != nil {
			t.Fatal(err)
		}
		if env[name] != string(want) {
			t.Errorf("%s: got %q, the shell reads %q", name, env[name], want)
		}
	}
}

// A log file that is made late and grows is read to the end of what is there.
func TestFollow(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "console.log")
	console := guest.NewConsole()
	following, stop := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		follow(following, path, console)
	}()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, text := range []string{"first line\r\nORDERS FOUND fir", "st=1 last=7 missing=0 torn=0\n"} {
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if _, err := console.Wait(ctx, 0, regexp.MustCompile(`^first line$`)); err != nil {
			t.Fatal(err)
		}
	}
	found, err := console.Wait(ctx, 0, guest.OrdersFound)
	if err != nil {
		t.Fatal(err)
	}
	if ledger, err := guest.ParseLedger(found); err != nil || ledger.Last != 7 {
		t.Errorf("got %+v, %v", ledger, err)
	}
	why := errors.New("seen enough")
	stop(why)
	<-ended
	if _, err := console.Wait(ctx, 0, regexp.MustCompile(`never printed`)); !errors.Is(err, why) {
		t.Errorf("waiting on an ended console: got %v, want %v", err, why)
	}
}

// Piped output has every outcome on a line of its own and no control characters.
func TestTimelineWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	line := newTimeline(&out, false)
	done := line.progress("working")
	line.update("half way")
	done("worked %d times", 3)
	line.say("%s", line.bold("the end"))
	if got := out.String(); strings.ContainsAny(got, "\r\x1b") || strings.Contains(got, "half way") ||
		!regexp.MustCompile(`^ +\d+\.\ds  worked 3 times\n +\d+\.\ds  the end\n$`).MatchString(got) {
		t.Errorf("got %q", got)
	}
}

// Promises broken by a recovered machine are found.
func TestVerdict(t *testing.T) {
	whole := func(last int) guest.Ledger { return guest.Ledger{First: 1, Last: last} }
	for name, c := range map[string]struct {
		ledger guest.Ledger
		kept   bool
	}{
		"up to the point":           {whole(20), true},
		"one in flight came too":    {whole(31), true},
		"order before point lost":   {whole(19), false},
		"orders out of thin air":    {whole(32), false},
		"order missing in the line": {guest.Ledger{First: 1, Last: 25, Missing: 1}, false},
		"torn order":                {guest.Ledger{First: 1, Last: 25, Torn: 1}, false},
	} {
		err := verdict(recovered{ledger: c.ledger}, disaster{lastConfirmed: 30}, 20)
		if (err == nil) != c.kept {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A machine that no server is left to stop is told so on its own socket, and
// only a QEMU's answer ends the wait.
func TestQuitMachines(t *testing.T) {
	dir := t.TempDir()
	instance := filepath.Join(dir, "i-0123456789abcdef0")
	if err := os.MkdirAll(instance, 0o700); err != nil {
		t.Fatal(err)
	}
	qemu := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-S", "-m", "16",
		"-qmp", "unix:"+filepath.Join(instance, "qmp.sock")+",server=on,wait=off", "-serial", "stdio")
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = qemu.Process.Kill() })
	ended := make(chan error, 1)
	go func() { ended <- qemu.Wait() }()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for { // until it listens
		conn, err := net.Dial("unix", filepath.Join(instance, "qmp.sock"))
		if err == nil {
			conn.Close()
			break
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if err := quitMachines(ctx, dir); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("QEMU ended with %v", err)
		}
	case <-ctx.Done():
		t.Error("QEMU still runs")
	}
	if err := quitMachines(ctx, dir); err != nil {
		t.Errorf("quitting what has ended: %v", err)
	}
}

// A demo whose binary fails tells what failed and where the logs are.
func TestRunTellsWhatFailed(t *testing.T) {
	var out bytes.Buffer
	dir := filepath.Join(t.TempDir(), "work")
	err := Run(context.Background(), Config{Binary: "/bin/false", Dir: dir, Out: &out})
	if err == nil || !strings.Contains(err.Error(), "the server ended by itself") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out.String(), dir) {
		t.Errorf("does not tell where the logs are:\n%s", out.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "server.log")); err != nil {
		t.Error(err)
	}
}
