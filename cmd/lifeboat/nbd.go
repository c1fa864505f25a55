package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type nbdCommand struct {
	clientFlags
	Server       string `arg:"" help:"Hostname, ID, or first part of an ID."`
	Point        string `placeholder:"P" default:"latest" help:"Recovery point: an ID, the first part of one, or \"latest\" (the default)."`
	Disk         int    `placeholder:"N" default:"0" help:"Number of the disk; the server's disks count from 0 (the default)."`
	Certificates string `required:"" placeholder:"DIR" type:"path" help:"Where the certificates go with which programs reach the disk."`
}

// Validate implements kong's check of the command line.
func (v *nbdCommand) Validate() error {
	if v.Disk < 0 {
		return errors.New("--disk counts the server's disks from 0")
	}
	return nil
}

// reachableDisk is what the verb prints as JSON.
type reachableDisk struct {
	Server       string       `json:"server"`
	Point        client.Point `json:"point"`
	Disk         int          `json:"disk"`
	URI          string       `json:"uri"`
	Certificates string       `json:"certificates"`
	Expires      time.Time    `json:"expires"`
}

// Run gets a certificate for reading disks and tells where the disk is.
func (v *nbdCommand) Run(ctx context.Context) error {
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
	access, err := c.DiskAccess(ctx, s.ID, point.ID, v.Disk)
	if err != nil {
		return fmt.Errorf("get access to disk %d of %s: %w", v.Disk, s.Name(), err)
	}
	dir, err := filepath.Abs(v.Certificates)
	if err != nil {
		return err
	}
	if err := access.Save(dir); err != nil {
		return err
	}
	uri := access.URI(s.ID, point.ID, v.Disk, dir)
	return v.result(reachableDisk{s.ID, point, v.Disk, uri, dir, access.Expires}, func(p *show.Printer) {
		p.Blocks(s, point, v.Disk, uri, access.Expires)
	})
}
