// Command bench measures Lifeboat side by side with well-known tools, on the same
// machine, in one run: ratios say more than seconds. It uses the real binary from
// outside, and the vault's own package where a figure is the vault's alone. What
// it finds is printed as one table and written as JSON, from which the README's
// table is made; a row that cannot run says why.
//
//	go run ./test/bench -lifeboat bin/lifeboat -out bench/results.json
//	go run ./test/bench -rows nbd,commit         some rows; the others keep their last figures
//	go run ./test/bench -readme README.md        only writes the table of the last results there
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	binary := flag.String("lifeboat", "bin/lifeboat", "the lifeboat binary")
	out := flag.String("out", "bench/results.json", "where the results are kept")
	dir := flag.String("dir", "", "where to work; needs 24 GiB (default: a temporary directory, removed afterwards)")
	keep := flag.String("keep", "", "where to keep what takes long to prepare, for later runs (default: nowhere)")
	only := flag.String("rows", "", "names of rows, or first parts of names, with commas between (default: all)")
	list := flag.Bool("list", false, "list the rows")
	readme := flag.String("readme", "", "write the table of the kept results into this file, and measure nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *list:
		for _, r := range rows {
			fmt.Printf("%-12s %s\n", r.name, r.about)
		}
	case *readme != "":
		err = writeReadme(*out, *readme)
	default:
		err = run(ctx, *binary, *out, *dir, *keep, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// limit ends a row that hangs.
const limit = 8 * time.Minute

func run(ctx context.Context, binary, out, dir, keep, only string) (err error) {
	chosen, err := choose(rows, only)
	if err != nil {
		return err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "lifeboat-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	kept, err := readResults(out)
	if err != nil {
		return err
	}
	b := &bench{binary: binary, dir: dir, keep: keep}
	version, err := output(ctx, binary, "--version")
	if err != nil {
		return err
	}
	r := results{
		At: time.Now().UTC().Truncate(time.Second), Version: strings.TrimSpace(version), CPUs: runtime.NumCPU(),
		Go: runtime.Version(), Peers: versions(ctx), Kernel: kernel(ctx),
	}
	for _, row := range chosen {
		began := time.Now()
		tell("%s: %s", row.name, row.about)
		measures, err := row.measure(ctx, b)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err != nil {
			tell("%s: %v", row.name, err)
			measures = append(measures, measurement{Name: row.about, Why: firstLine(err)})
		}
		for i := range measures {
			measures[i].settle(row.name, r.At)
			fmt.Println(measures[i].line())
		}
		r.Measures = append(r.Measures, measures...)
		tell("%s took %s", row.name, time.Since(began).Round(time.Second))
	}
	r.keep(kept, chosen)
	return r.write(out)
}

func tell(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
