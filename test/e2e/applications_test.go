package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/source/blocktrack/tracktest"
)

// database is a real database server of the distribution.
type database struct {
	user    string                                  // that it runs as
	create  func(dir string) *exec.Cmd              // makes an empty one
	serve   func(dir, socket string) *exec.Cmd      // until SIGINT or SIGTERM
	client  func(socket string) *exec.Cmd           // takes statements, a line each, and prints rows
	hooks   string                                  // in docs/hooks
	hookEnv func(socket, run string) (env []string) // what they need to find the server
}

var databases = map[string]database{
	"postgresql": {
		user: "postgres",
		create: func(dir string) *exec.Cmd {
			return exec.Command(postgresBin("initdb"), "--pgdata", dir, "--auth", "trust", "--no-instructions", "--no-sync")
		},
		serve: func(dir, socket string) *exec.Cmd {
			return exec.Command(postgresBin("postgres"), "-D", dir, "-c", "listen_addresses=", "-c", "unix_socket_directories="+socket,
				"-c", "shared_buffers=16MB", "-c", "min_wal_size=32MB", "-c", "max_wal_size=64MB")
		},
		client: func(socket string) *exec.Cmd {
			return exec.Command("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--host", socket, "postgres")
		},
		hooks:   "postgresql",
		hookEnv: func(socket, _ string) []string { return []string{"PGHOST=" + socket} },
	},
	"mariadb": {
		user: "mysql",
		create: func(dir string) *exec.Cmd {
			return exec.Command("mariadb-install-db", "--no-defaults", "--datadir="+dir, "--auth-root-authentication-method=normal", "--skip-test-db",
				"--innodb-log-file-size=8M")
		},
		serve: func(dir, socket string) *exec.Cmd {
			return exec.Command("mariadbd", "--no-defaults", "--datadir="+dir, "--socket="+filepath.Join(socket, "sock"), "--skip-networking",
				"--pid-file="+filepath.Join(socket, "pid"), "--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=1")
		},
		client: func(socket string) *exec.Cmd {
			return exec.Command("mariadb", "--no-defaults", "--socket="+filepath.Join(socket, "sock"), "--user=root",
				"--batch", "--unbuffered", "--skip-column-names", "mysql")
		},
		hooks: "mariadb",
		hookEnv: func(socket, run string) []string {
			return []string{"LIFEBOAT_HOOKS_RUN=" + run, "LIFEBOAT_MYSQL=mariadb --no-defaults --user=root --socket=" + filepath.Join(socket, "sock")}
		},
	},
}

// postgresBin finds a program of the server's, which are not on the PATH of all distributions.
func postgresBin(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return name
	}
	return found[len(found)-1]
}

func (d database) as(t *testing.T, c *exec.Cmd) *exec.Cmd {
	t.Helper()
	c.SysProcAttr = &syscall.SysProcAttr{Credential: d.credential(t), Pdeathsig: syscall.SIGKILL}
	c.Dir = "/"
	return c
}

func (d database) credential(t *testing.T) *syscall.Credential {
	t.Helper()
	who, err := user.Lookup(d.user)
	if err != nil {
		t.Fatalf("%v: make setup-test installs the databases", err)
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// start serves the database in a directory until the function it returns is called.
func (d database) start(t *testing.T, dir string) (socket string, stop func()) {
	t.Helper()
	socket, err := os.MkdirTemp("", "db") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(socket) })
	who := d.credential(t)
	if err := os.Chown(socket, int(who.Uid), int(who.Gid)); err != nil {
		t.Fatal(err)
	}
	server := d.as(t, d.serve(dir, socket))
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	stop = sync.OnceFunc(func() {
		_ = server.Process.Signal(syscall.SIGINT) // PostgreSQL does not wait for its clients then
		_ = server.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	t.Cleanup(stop)
	eventually(t, "the database takes statements", func() (string, bool) {
		said, err := d.ask(socket, "SELECT 1;")
		if err != nil {
			raw, _ := os.ReadFile(log.Name())
			return err.Error() + said + string(raw), false
		}
		return said, true
	})
	return socket, stop
}

// ask runs a statement.
func (d database) ask(socket, statement string) (string, error) {
	c := d.client(socket)
	if d.user == "postgres" {
		c.Args = append(c.Args, "postgres") // as whom
	}
	c.Stdin = strings.NewReader(statement + "\n")
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// order is a row that the database has committed.
type order struct {
	n  int
	at time.Time // when the client was told
}

// busy commits rows one after the other until the function it returns is called,
// which returns them.
func (d database) busy(t *testing.T, socket string) (stop func() []order) {
	t.Helper()
	c := d.client(socket)
	if d.user == "postgres" {
		c.Args = append(c.Args, "postgres")
	}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	all := make(chan []order, 1)
	go func() {
		var orders []order
		defer func() { all <- orders }()
		lines := bufio.NewScanner(out)
		for n := 1; ctx.Err() == nil; n++ {
			if _, err := fmt.Fprintf(in, "INSERT INTO orders VALUES (%d, '%0300d'); SELECT %d;\n", n, n, n); err != nil || !lines.Scan() {
				return
			}
			if lines.Text() != strconv.Itoa(n) {
				t.Errorf("the database says %q to order %d", lines.Text(), n)
				return
			}
			orders = append(orders, order{n, time.Now()})
		}
	}()
	return func() []order {
		cancel()
		orders := <-all
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		return orders
	}
}

// Databases of the distribution at work, frozen with the hooks that we ship: what is
// recovered from a point starts, and has every row that was committed before the
// freeze, and none of which it lacks an earlier one.
func TestApplications(t *testing.T) {
	for name, d := range databases {
		t.Run(name, func(t *testing.T) { d.survives(t) })
	}
}

func (d database) survives(t *testing.T) {
	disk := tracktest.Loop(t, 384<<20)
	dir, unmount := tracktest.Mount(t, disk, "ext4", "defaults")
	// Where a test lies only its owner may go.
	for up := dir; up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	who := d.credential(t)
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, int(who.Uid), int(who.Gid)); err != nil {
		t.Fatal(err)
	}
	if out, err := d.as(t, d.create(data)).CombinedOutput(); err != nil {
		t.Fatalf("make the database: %v: %s", err, out)
	}
	socket, stopServer := d.start(t, data)
	if said, err := d.ask(socket, "CREATE TABLE orders (n INT PRIMARY KEY, pad TEXT);"); err != nil {
		t.Fatal(err, said)
	}
	stopOrders := d.busy(t, socket)

	in := install(t)
	for _, env := range d.hookEnv(socket, t.TempDir()) {
		key, value, _ := strings.Cut(env, "=")
		t.Setenv(key, value)
	}
	agent := start(t, "agent", "--server", in.env["AWS_ENDPOINT_URL"], "--ca-cert", in.env["AWS_CA_BUNDLE"], "--token", in.env["LIFEBOAT_TOKEN"],
		"--state", filepath.Join(t.TempDir(), "state"), "--disk", disk, "--hostname", "shop", "--tracker", "ebpf", "--epoch", "1s",
		"--hooks", filepath.Join("..", "..", "docs", "hooks", d.hooks))
	var points []pointShown
	eventually(t, "two points of the application", func() (string, bool) {
		select {
		case <-agent.done:
			t.Fatalf("the agent ended: %v\n%s", agent.err, agent.log.Tail(40))
		default:
		}
		out, said, code := lifeboat(t, in.env, "points", "shop", "--json", "--fuzzy")
		var shown struct{ Points []pointShown }
		if code != 0 || json.Unmarshal([]byte(out), &shown) != nil {
			return said, false
		}
		points = points[:0]
		for _, p := range shown.Points {
			if p.Consistency == "application" {
				points = append(points, p)
			}
		}
		return out, len(points) >= 2
	})
	orders := stopOrders()
	if err := agent.stop(t); err != nil {
		t.Error(err)
	}
	stopServer()
	unmount()

	p := points[0] // the newest
	if p.Method != "frozen" || p.FreezeMilliseconds <= 0 || p.FreezeMilliseconds > 2000 {
		t.Errorf("point %+v was not made by a freeze within its bound", p)
	}
	committed := 0
	for _, o := range orders {
		if o.at.Before(p.Taken) {
			committed = o.n
		}
	}
	image := filepath.Join(t.TempDir(), "recovered.img")
	if _, said, code := lifeboat(t, in.env, "export", "shop", "--point", p.ID, "--disk", "0", "--output", image); code != 0 {
		t.Fatal(said)
	}
	back := t.TempDir()
	if err := os.Chmod(back, 0o755); err != nil {
		t.Fatal(err)
	}
	tracktest.Command(t, "mount", "-o", "loop", image, back)
	t.Cleanup(func() { tracktest.Command(t, "umount", back) })
	_ = os.Remove(filepath.Join(back, "data", "postmaster.pid")) // the server it names is not of this machine
	socket, stopServer = d.start(t, filepath.Join(back, "data"))
	defer stopServer()
	said, err := d.ask(socket, "SELECT CONCAT(COUNT(*), ' ', MAX(n)) FROM orders;")
	var count, last int
	if _, scanErr := fmt.Sscan(said, &count, &last); err != nil || scanErr != nil {
		t.Fatalf("%v, %v: %s", err, scanErr, said)
	}
	if last < committed || count != last {
		t.Errorf("the point of %s has %d orders up to %d; %d were committed by then", p.Taken, count, last, committed)
	}
	t.Logf("frozen for %.1f ms; %d orders in all, %d committed before the point, %d in it", p.FreezeMilliseconds, len(orders), committed, last)
}

// pointShown is a point as `lifeboat points --json` shows it.
type pointShown struct {
	ID, Consistency, Method string
	Taken                   time.Time
	FreezeMilliseconds      float64
}
