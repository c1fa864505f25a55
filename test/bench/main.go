// Command bench measures Lifeboat side by side with well-known tools, on the same
// machine, in one run: ratios say more than seconds. It uses the real binary from
// outside, prints what it finds and writes it as JSON.
//
//	go run ./test/bench -lifeboat bin/lifeboat -out bench/results.json
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// results is what is written; fields are only ever added.
type results struct {
	At       time.Time     `json:"at"`
	Version  string        `json:"version"`
	CPUs     int           `json:"cpus"`
	Go       string        `json:"go"`
	Measures []measurement `json:"measures"`
}

// measurement is one figure of ours, with the peer's beside it where there is one.
type measurement struct {
	Name string  `json:"name"`
	Unit string  `json:"unit"`
	Ours float64 `json:"ours"`
	// Peer is what the figure is held against, and PeerValue that one's.
	Peer      string  `json:"peer,omitempty"`
	PeerValue float64 `json:"peerValue,omitempty"`
	// Ratio is Ours to PeerValue; Reach is the most that it, or without a peer Ours,
	// is meant to be, 0 when nothing is meant.
	Ratio float64 `json:"ratio,omitempty"`
	Reach float64 `json:"reach,omitempty"`
}

// met tells whether the figure is within reach.
func (m measurement) met() bool {
	if m.Ratio > 0 {
		return m.Reach == 0 || m.Ratio <= m.Reach
	}
	return m.Reach == 0 || m.Ours <= m.Reach
}

func main() {
	binary := flag.String("lifeboat", "bin/lifeboat", "the lifeboat binary")
	out := flag.String("out", "bench/results.json", "where to write the results")
	dir := flag.String("dir", "", "where to work; needs 8 GiB (default: a temporary directory, removed afterwards)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *out, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary, out, dir string) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "lifeboat-bench-"); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(dir)
			} else {
				err = fmt.Errorf("%w (logs are in %s)", err, dir)
			}
		}()
	}
	r := results{At: time.Now().UTC().Truncate(time.Second), CPUs: runtime.NumCPU(), Go: runtime.Version()}
	measures, err := measure(ctx, binary, dir, &r)
	r.Measures = measures
	if err != nil {
		return err
	}
	for _, m := range r.Measures {
		print(m)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(out), 0o755), os.WriteFile(out, append(data, '\n'), 0o644))
}

func print(m measurement) {
	line := fmt.Sprintf("%-52s %8.2f %-4s", m.Name, m.Ours, m.Unit)
	if m.Peer != "" {
		line += fmt.Sprintf("  %s %.2f %s: %.2fx", m.Peer, m.PeerValue, m.Unit, m.Ratio)
	}
	if m.Reach > 0 {
		verdict := "reached"
		if !m.met() {
			verdict = "NOT reached"
		}
		line += fmt.Sprintf("  (%s: at most %.2f)", verdict, m.Reach)
	}
	fmt.Println(line)
}
