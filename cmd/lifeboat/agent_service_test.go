package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// installation is a root folder that an agent is installed below.
type installation struct {
	*world
	program string // a lifeboat that runs on its own
	root    string
	socket  *net.UnixConn
}

func newInstallation(t *testing.T) (i *installation, url, token string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("installing takes root")
	}
	dir, err := os.MkdirTemp("", "lb")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, data: filepath.Join(dir, "data")}
	w.start("server", "--data", w.data, "--listen", "127.0.0.1:0", "--replication-listen", "127.0.0.1:0")
	w.eventually(func() error { _, err := w.run("init", "--data", w.data); return err })
	env, err := w.run("env", "--data", w.data)
	must(t, err)
	i = &installation{world: w, program: filepath.Join(dir, "lifeboat"), root: filepath.Join(dir, "root")}
	build := exec.Command("go", "build", "-o", i.program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, d := range []string{"proc", "run"} {
		must(t, os.MkdirAll(filepath.Join(i.root, d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(i.root, "disk.img"), bytes.Repeat([]byte("what a machine knows"), 100_000), 0o600))
	i.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(i.root, "run/notify"), Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { i.socket.Close() })
	return i, regexp.MustCompile(`AWS_ENDPOINT_URL='(.*)'`).FindStringSubmatch(env)[1],
		regexp.MustCompile(`LIFEBOAT_TOKEN='(.*)'`).FindStringSubmatch(env)[1]
}

func (i *installation) lifeboat(args ...string) {
	i.t.Helper()
	if out, err := exec.Command(i.program, append(args, "--root", i.root)...).CombinedOutput(); err != nil {
		i.t.Fatalf("lifeboat %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (i *installation) read(name string) string {
	i.t.Helper()
	raw, err := os.ReadFile(filepath.Join(i.root, name))
	must(i.t, err)
	return string(raw)
}

func (i *installation) absent(names ...string) {
	i.t.Helper()
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(i.root, name)); !errors.Is(err, fs.ErrNotExist) {
			i.t.Errorf("%s is there: %v", name, err)
		}
	}
}

// serve runs what the unit says with the folder as its root, as systemd would, until
// the agent says to systemd that it has replicated all.
func (i *installation) serve() {
	i.t.Helper()
	command := regexp.MustCompile(`(?m)^ExecStart=(\S+) agent (.*)$`).FindStringSubmatch(i.read("etc/systemd/system/lifeboat-agent.service"))
	args := []string{"-m", "sh", "-c", `mount --bind /proc "$0/proc" && exec chroot "$0" "$@"`, i.root, command[1], "agent"}
	for _, quoted := range regexp.MustCompile(`"(?:[^"\\]|\\.)*"`).FindAllString(command[2], -1) {
		arg, err := strconv.Unquote(quoted)
		must(i.t, err)
		args = append(args, strings.NewReplacer("%%", "%", "$$", "$").Replace(arg))
	}
	var messages bytes.Buffer
	c := exec.Command("unshare", args...)
	c.Env, c.Stdout, c.Stderr = []string{"NOTIFY_SOCKET=/run/notify"}, &messages, &messages
	must(i.t, c.Start())
	ready := false
	must(i.t, i.socket.SetReadDeadline(time.Now().Add(3*time.Minute)))
	for packet := make([]byte, 8192); ; {
		n, err := i.socket.Read(packet)
		if err != nil {
			c.Process.Kill()
			c.Wait()
			i.t.Fatalf("the agent does not say that it replicates: %v\n%s", err, &messages)
		}
		said := string(packet[:n])
		ready = ready || strings.Contains(said, "\nREADY=1")
		if strings.HasPrefix(said, "STATUS=CONTINUOUS: ") {
			break
		}
	}
	if !ready {
		i.t.Error("replicates and is not ready")
	}
	must(i.t, c.Process.Signal(syscall.SIGTERM))
	if err := c.Wait(); err != nil {
		i.t.Errorf("agent: %v\n%s", err, &messages)
	}
}

// A machine goes from a token to a replicated server by one command, and through
// upgrade, removal and a new installation without a token it stays that server.
func TestAgentAsAService(t *testing.T) {
	t.Parallel()
	i, url, token := newInstallation(t)
	const (
		unit     = "etc/systemd/system/lifeboat-agent.service"
		wanted   = "etc/systemd/system/multi-user.target.wants/lifeboat-agent.service"
		settings = "etc/lifeboat-agent/settings.json"
		secret   = "etc/lifeboat-agent/token"
		identity = "var/lib/lifeboat-agent/identity.json"
	)
	install := []string{"agent", "install", "--server", url, "--ca-cert", filepath.Join(i.data, "ca.pem"), "--disk", "/disk.img", "--hostname", `a "1" $100% name`}
	i.lifeboat(append(install, "--token", token)...)
	if s, err := os.Stat(filepath.Join(i.root, secret)); err != nil || s.Mode() != 0o600 {
		t.Errorf("the token's file is %v, %v", s.Mode(), err)
	}
	for _, name := range []string{unit, settings} {
		if strings.Contains(i.read(name), token) {
			t.Errorf("%s holds the install token", name)
		}
	}
	if !strings.Contains(i.read(unit), "KillMode=process") {
		t.Error("the unit's guard would die with the agent")
	}
	if _, err := os.Lstat(filepath.Join(i.root, wanted)); err != nil {
		t.Error(err)
	}
	i.serve()
	i.absent(secret)
	before := i.read(identity)

	i.lifeboat("agent", "upgrade")
	i.absent("usr/local/bin/lifeboat-agent.previous")
	i.serve()
	i.lifeboat("agent", "uninstall")
	i.absent(unit, wanted, "etc/lifeboat-agent", "usr/local/bin/lifeboat-agent")
	i.lifeboat(install...) // without a token
	i.serve()
	if i.read(identity) != before {
		t.Error("the machine is another source server now")
	}
	i.lifeboat("agent", "uninstall", "--purge")
	i.absent("etc/lifeboat-agent", "var/lib/lifeboat-agent")
	out, err := exec.Command(i.program, "agent", "uninstall", "--root", i.root).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no agent is installed") {
		t.Errorf("uninstalled again: %v: %s", err, out)
	}
}
