// Package s3test runs a real S3 server for tests: versitygw on a folder, behind a
// proxy in this process that can fail in every way a network and an overloaded
// store do. scripts/setup.sh installs versitygw, a program of its own and no
// dependency of Lifeboat; where it is missing, tests skip.
package s3test

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/vault/blob/s3"
)

// The keys of the server's root account.
const (
	AccessKey = "lifeboat-test"
	SecretKey = "not-a-secret-of-anybody"
)

// Server is an S3 server on loopback that outlives its stops.
type Server struct {
	t      testing.TB
	bin    string
	dir    string // holds the buckets' folder, the socket and the log
	proxy  *httptest.Server
	caFile string // of a TLS server
	around atomic.Pointer[Intercept]

	mu      sync.Mutex
	process *exec.Cmd // nil while stopped; guarded by mu
}

// Intercept stands between clients and the server; next passes a request on.
type Intercept func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Start runs a server until the test ends, and gives the test its keys in the
// environment.
func Start(t testing.TB) *Server { return keyed(t, start(t, false)) }

// StartAside is Start for a parallel test, whose environment must not change: what
// uses the server is a program that is given Env.
func StartAside(t testing.TB) *Server { return start(t, false) }

// StartTLS runs one behind a certificate of an authority that nobody knows.
func StartTLS(t testing.TB) *Server { return keyed(t, start(t, true)) }

func keyed(t testing.TB, s *Server) *Server {
	for name, value := range Env() {
		t.Setenv(name, value)
	}
	return s
}

func start(t testing.TB, withTLS bool) *Server {
	t.Helper()
	bin, err := find()
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "s3test-") // the names of tests are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, sub := range []string{"data", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{t: t, bin: bin, dir: dir}
	s.proxy = httptest.NewUnstartedServer(s.handler())
	s.proxy.Config.ErrorLog = nil
	if withTLS {
		s.proxy.StartTLS()
		s.caFile = filepath.Join(dir, "ca.pem")
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.proxy.Certificate().Raw})
		if err := os.WriteFile(s.caFile, text, 0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		s.proxy.Start()
	}
	t.Cleanup(s.proxy.Close)
	t.Cleanup(s.Stop)
	s.Run()
	return s
}

// Env is what a program that uses the server needs in its environment, and what
// keeps it from looking for keys elsewhere.
func Env() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CA_BUNDLE": "",
	}
}

// find returns the program that scripts/setup.sh has installed.
func find() (string, error) {
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(cache, "lifeboat", "tools", "*", "versitygw"))
	if err != nil || len(found) == 0 {
		return "", errors.New("versitygw is not installed: scripts/setup.sh test does it")
	}
	return found[len(found)-1], nil
}

// handler passes requests through the intercept to the server's socket.
func (s *Server) handler() http.Handler {
	socket := filepath.Join(s.dir, "socket")
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "s3" },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
			// versitygw takes the rest of a body that it did not read for another request.
			DisableCompression: true, DisableKeepAlives: true,
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // as if the server itself were gone
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if around := s.around.Load(); around != nil {
			(*around)(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	})
}

// Around puts an intercept between clients and server; nil takes it away.
func (s *Server) Around(i Intercept) {
	if i == nil {
		s.around.Store(nil)
		return
	}
	s.around.Store(&i)
}

// Run starts the server again after Stop, with more of its flags if any are given.
func (s *Server) Run(flags ...string) {
	s.t.Helper()
	socket := filepath.Join(s.dir, "socket")
	os.Remove(socket)
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"--port", socket, "--access", AccessKey, "--secret", SecretKey, "--quiet"}, flags...)
	args = append(args, "posix")
	if unix.Setxattr(filepath.Join(s.dir, "meta"), "user.lifeboat", []byte("x"), 0) != nil {
		args = append(args, "--sidecar", filepath.Join(s.dir, "meta"))
	}
	args = append(args, filepath.Join(s.dir, "data"))
	cmd := exec.CommandContext(context.Background(), s.bin, args...) // Stop ends it
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.process = cmd
	s.mu.Unlock()
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if conn, err := new(net.Dialer).DialContext(context.Background(), "unix", socket); err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-gone:
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.t.Fatalf("versitygw ended: %v\n%s", err, text)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatal("versitygw does not listen")
		}
	}
}

// Stop kills the server. Requests fail until Run.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill() // it may be gone by itself
	s.process = nil
	s.proxy.CloseClientConnections()
}

// Freeze stops the server in the middle of whatever it does, as an overloaded host
// would: connections stay, and nothing is answered until the returned function is called.
func (s *Server) Freeze() (thaw func()) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	process := s.process.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	return func() { _ = process.Signal(syscall.SIGCONT) } // it may have been killed
}

// Location makes a new bucket and says where it is.
func (s *Server) Location() s3.Location {
	s.t.Helper()
	return newBucket(s.t, s.At(""))
}

// At says where a bucket of that name would be.
func (s *Server) At(bucket string) s3.Location {
	return s3.Location{Bucket: bucket, Region: "us-east-1", Endpoint: s.proxy.URL, PathStyle: true, CACert: s.caFile}
}
