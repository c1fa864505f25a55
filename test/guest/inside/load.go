package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/test/guest"
)

const (
	loadBlock   = 4096
	loadWriters = 4
)

// load writes random blocks of 4 KiB to random places of a file of MIB for SECONDS,
// around the page cache, at most RATE a second if that is not 0, and prints a
// guest.Load.
func load(args []string) error {
	if len(args) != 4 {
		return errors.New("usage: inside load FILE MIB SECONDS RATE")
	}
	var n [3]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(args[1+i]); err != nil {
			return err
		}
	}
	blocks := int64(n[0]) << 20 / loadBlock
	if err := fillFile(args[0], blocks); err != nil {
		return err
	}
	f, err := os.OpenFile(args[0], os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var all []time.Duration
	var failed error
	var mu sync.Mutex // covers all, failed
	var group sync.WaitGroup
	began := time.Now()
	end := began.Add(time.Duration(n[1]) * time.Second)
	for i := range loadWriters {
		group.Go(func() {
			took, err := writeUntil(f, blocks, began, end, n[2], i)
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, took...), errors.Join(failed, err)
		})
	}
	group.Wait()
	if failed != nil || len(all) == 0 {
		return fmt.Errorf("%d writes: %w", len(all), failed)
	}
	slices.Sort(all)
	return json.NewEncoder(os.Stdout).Encode(guest.Load{
		Writes: len(all), Seconds: time.Since(began).Seconds(), P50: all[len(all)/2], P99: all[len(all)*99/100],
	})
}

// fillFile makes a file whose every block is written.
func fillFile(path string, blocks int64) error {
	if info, err := os.Stat(path); err == nil && info.Size() == blocks*loadBlock {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, 1<<20)
	for left := blocks * loadBlock; left > 0; left -= int64(len(data)) {
		if _, err := f.Write(data[:min(left, int64(len(data)))]); err != nil {
			return err
		}
	}
	return f.Sync()
}

func writeUntil(f *os.File, blocks int64, began, end time.Time, rate, writer int) (took []time.Duration, err error) {
	page, err := unix.Mmap(-1, 0, loadBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	rng := rand.NewChaCha8([32]byte{byte(writer)})
	for n := 0; time.Now().Before(end); n++ {
		if rate > 0 {
			due := began.Add(time.Duration(n*loadWriters+writer) * time.Second / time.Duration(rate))
			time.Sleep(time.Until(due))
		}
		_, _ = rng.Read(page) // it never fails
		start := time.Now()
		if _, err := f.WriteAt(page, int64(rng.Uint64()%uint64(blocks))*loadBlock); err != nil {
			return took, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// syncs flushes the filesystem of a file N times, with a pause of half a second before
// each, and prints how long each took, as JSON.
func syncs(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: inside syncs FILE N")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	var took []time.Duration
	for range n {
		time.Sleep(500 * time.Millisecond)
		start := time.Now()
		if err := unix.Syncfs(int(f.Fd())); err != nil {
			return err
		}
		took = append(took, time.Since(start))
	}
	return json.NewEncoder(os.Stdout).Encode(took)
}
