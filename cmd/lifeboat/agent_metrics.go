package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lifeboat/internal/source/agent"
)

// serveMetrics serves an agent's metrics until stop is called, which waits for the end.
// An address that says nothing usable is refused. One that cannot be had is logged only:
// a machine that is protected and not watched is better off than the other way round.
func serveMetrics(ctx context.Context, address string, m *agent.Metrics, log *slog.Logger) (stop func(), err error) {
	network, at := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, at = "unix", path
		if !filepath.IsAbs(path) {
			return nil, usageError{fmt.Errorf("--metrics %s: want an absolute path, as in unix:/run/lifeboat-agent.sock", address)}
		}
	} else if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return nil, usageError{fmt.Errorf("--metrics %s: want HOST:PORT, as in 127.0.0.1:9171, or unix:FILE", address)}
	}
	l, err := listenMetrics(ctx, network, at)
	if err != nil {
		log.Error("metrics are not served", "err", err, "next_step", "choose another address with --metrics; the agent replicates all the same")
		return func() {}, nil
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are served no longer", "err", err)
		}
	}()
	log.Info("metrics are served", "address", l.Addr().String())
	return func() {
		_ = server.Close() // who looks at this moment looks in vain
		<-done
	}, nil
}

// listenMetrics listens; a socket that an agent before this one has left is replaced,
// but not one that still answers.
func listenMetrics(ctx context.Context, network, at string) (net.Listener, error) {
	if network == "unix" {
		info, err := os.Lstat(at)
		switch {
		case err == nil && info.Mode()&fs.ModeSocket == 0:
			return nil, fmt.Errorf("listen on %s: there is a file of that name, and it is no socket", at)
		case err == nil:
			if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, at); err == nil {
				c.Close()
				return nil, fmt.Errorf("listen on %s: another process serves it", at)
			}
			if err := os.Remove(at); err != nil {
				return nil, err
			}
		}
	}
	return new(net.ListenConfig).Listen(ctx, network, at)
}
