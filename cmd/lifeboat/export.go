package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
	"lifeboat/internal/durable"
)

type exportCommand struct {
	clientFlags
	Server string `arg:"" help:"Hostname, ID, or first part of an ID."`
	Point  string `placeholder:"P" default:"latest" help:"Recovery point: an ID, the first part of one, or \"latest\" (the default)."`
	Disk   int    `placeholder:"N" default:"0" help:"Number of the disk; the server's disks count from 0 (the default)."`
	Output string `required:"" short:"o" placeholder:"FILE" help:"Where the raw image goes; \"-\" writes it to stdout."`
	Force  bool   `help:"Replace an existing file."`
}

const toStdout = "-"

// Validate implements kong's check of the command line.
func (v *exportCommand) Validate() error {
	switch {
	case v.Disk < 0:
		return errors.New("--disk counts the server's disks from 0")
	case v.Output == toStdout && v.JSON:
		return errors.New("--json and --output - both want stdout: give one of them")
	case v.Output == toStdout && isTerminal(os.Stdout):
		return errors.New("--output - would fill the terminal with a disk: redirect stdout, or name a file")
	}
	return nil
}

// exported is what the verb prints as JSON.
type exported struct {
	Server string       `json:"server"`
	Point  client.Point `json:"point"`
	Disk   int          `json:"disk"`
	Output string       `json:"output"`
	client.Saved
}

// Run writes a disk of a recovery point to a file, without booting it.
func (v *exportCommand) Run(ctx context.Context) error {
	if v.Output != toStdout {
		if err := client.CheckOutput(v.Output, v.Force); err != nil {
			return err
		}
	}
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	s, err := c.FindServer(ctx, v.Server)
	if err != nil {
		return err
	}
	point, err := c.FindPoint(ctx, s, v.Point)
	if err != nil {
		return err
	}
	began := time.Now()
	saved, err := v.transfer(ctx, c, s, point)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("interrupted: disk %d of %s was not exported", v.Disk, s.Name())
	}
	if err != nil {
		return fmt.Errorf("export disk %d of %s at %s: %w", v.Disk, s.Name(), point.ID, err)
	}
	text := func(p *show.Printer) { p.Exported(s, point, v.Disk, v.Output, saved, time.Since(began)) }
	if v.Output == toStdout {
		return say(text)
	}
	return v.result(exported{s.ID, point, v.Disk, v.Output, saved}, text)
}

func (v *exportCommand) transfer(ctx context.Context, c *client.Client, s client.Server, point client.Point) (saved client.Saved, err error) {
	disk, err := c.Disk(ctx, s.ID, point.ID, v.Disk)
	if err != nil {
		return saved, err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()

	bar, began, drawn := live(), time.Now(), time.Time{}
	defer bar.End()
	progress := func(at, data int64) {
		if time.Since(drawn) > 100*time.Millisecond {
			drawn = time.Now()
			bar.Transfer(at, disk.Size(), data, time.Since(began))
		}
	}
	if v.Output != toStdout {
		return client.SaveImage(ctx, durable.Files{}, disk, v.Output, v.Force, progress)
	}
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	saved, err = client.StreamImage(out, disk, progress)
	if err == nil {
		err = out.Flush()
	}
	return saved, err
}
