package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
	"lifeboat/internal/diskstream"
	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/server/export"
)

type vaultExportCommand struct {
	vaultFlags
	Server string `arg:"" help:"Hostname, ID, or first part of an ID."`
	Point  string `placeholder:"P" default:"latest" help:"Recovery point: an ID, the first part of one, or \"latest\" (the default)."`
	Disk   int    `placeholder:"N" default:"0" help:"Number of the disk; the server's disks count from 0 (the default)."`
	Output string `required:"" short:"o" placeholder:"FILE" help:"Where the raw image goes; \"-\" writes it to stdout."`
	Force  bool   `help:"Replace an existing file."`
}

// Validate implements kong's check of the command line.
func (v *vaultExportCommand) Validate() error {
	online := exportCommand{Disk: v.Disk, Output: v.Output}
	online.JSON = v.JSON
	return online.Validate()
}

// Run writes a disk straight from the vault's objects to a file.
func (v *vaultExportCommand) Run(ctx context.Context) (err error) {
	if v.Output != toStdout {
		if err := client.CheckOutput(v.Output, v.Force); err != nil {
			return err
		}
	}
	open, err := v.look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	known, err := open.Server(ctx, v.Server)
	if err != nil {
		return err
	}
	point, err := open.Point(ctx, known, v.Point)
	if err != nil {
		return err
	}
	source := drs.SourceServer{ID: known.ID}
	source.Properties.Disks = known.Disks()
	disk, err := export.FromVault(open.Vault)(ctx, source, point.ID, v.Disk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	began := time.Now()
	saved, err := v.transfer(ctx, disk)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("interrupted: disk %d of %s was not exported", v.Disk, known.Hostname)
	}
	if err != nil {
		return fmt.Errorf("export disk %d of %s at %s: %w", v.Disk, known.Hostname, point.ID, err)
	}
	shown := client.Point{ID: string(point.ID), Server: string(known.ID), Taken: point.Taken, Consistency: string(point.Consistency)}
	text := func(p *show.Printer) {
		p.Exported(client.Server{ID: string(known.ID), Hostname: known.Hostname}, shown, v.Disk, v.Output, saved, time.Since(began))
	}
	if v.Output == toStdout {
		return say(text)
	}
	return v.result(exported{string(known.ID), shown, v.Disk, v.Output, saved}, text)
}

// transfer sends the disk to the file as a server would to a client, checksums and all.
func (v *vaultExportCommand) transfer(ctx context.Context, disk export.Disk) (saved client.Saved, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		w.CloseWithError(export.Stream(ctx, w, disk))
	}()
	defer func() {
		_ = r.Close() // never fails
		cancel()
		<-sent
	}()
	stream, err := diskstream.NewReader(r)
	if err != nil {
		return saved, err
	}
	bar, began, drawn := live(), time.Now(), time.Time{}
	defer bar.End()
	progress := func(at, data int64) {
		if time.Since(drawn) > 100*time.Millisecond {
			drawn = time.Now()
			bar.Transfer(at, stream.Size(), data, time.Since(began))
		}
	}
	if v.Output != toStdout {
		return client.SaveImage(ctx, durable.Files{}, stream, v.Output, v.Force, progress)
	}
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	saved, err = client.StreamImage(out, stream, progress)
	if err == nil {
		err = out.Flush()
	}
	return saved, err
}
