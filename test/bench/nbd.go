package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/demo/rig"
)

const (
	blockSize  = 1 * gib
	blockData  = 640 * mib
	blockStart = guestSize // where the data begins
)

// blockSite is a site with a recovery instance that was launched with its machine
// off: its disk is served as an NBD export and nobody else uses it.
type blockSite struct {
	*site
	image string
	uri   string
}

func (b *bench) newBlockSite(ctx context.Context, dir string) (_ *blockSite, err error) {
	image := filepath.Join(dir, "disk.img")
	if err := makeMachine(ctx, image, blockSize, blockData); err != nil {
		return nil, err
	}
	s, err := b.newSite(ctx, filepath.Join(dir, "site"))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	id, err := s.protect(ctx, image)
	if err != nil {
		return nil, err
	}
	if _, err := s.server.UpdateLaunchConfiguration(ctx, &awsdrs.UpdateLaunchConfigurationInput{
		SourceServerID: &id, LaunchDisposition: types.LaunchDispositionStopped,
	}); err != nil {
		return nil, err
	}
	if _, err := launch(ctx, s.server, id); err != nil {
		return nil, err
	}
	out, err := s.server.DescribeRecoveryInstances(ctx, &awsdrs.DescribeRecoveryInstancesInput{})
	if err != nil {
		return nil, err
	}
	if len(out.Items) != 1 {
		return nil, fmt.Errorf("%d recovery instances after a drill of one server", len(out.Items))
	}
	instance := aws.ToString(out.Items[0].RecoveryInstanceID)
	return &blockSite{s, image, "nbd+unix:///" + instance + "/0?socket=" + filepath.Join(s.Data(), "disks.sock")}, nil
}

// withBlocks runs f with a block site and a place for its peers' files.
func (b *bench) withBlocks(ctx context.Context, f func(s *blockSite, dir string) ([]measurement, error)) (m []measurement, err error) {
	dir, remove, err := b.place("nbd")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	s, err := b.newBlockSite(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	return f(s, dir)
}

// peerServer runs a program that serves on a socket until stop, and waits until it does.
func peerServer(ctx context.Context, socket string, name string, args ...string) (stop func(), err error) {
	if err := os.RemoveAll(socket); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var text strings.Builder
	cmd.Stderr = &text
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { // ends with the program, which stop ends
		_ = cmd.Wait() // it is told to end
		close(ended)
	}()
	stop = func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	}
	for {
		if _, err := os.Stat(socket); err == nil {
			return stop, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("%s ended: %s", name, strings.TrimSpace(text.String()))
		default:
		}
		if err := rig.Pause(ctx, 10*time.Millisecond); err != nil {
			stop()
			return nil, err
		}
	}
}

// load is one way to use a block device.
type load struct {
	name string
	unit string
	args []string // of fio
}

// fio runs a load on a device and returns its figure: MiB/s or thousands of operations a second.
func fio(ctx context.Context, uri string, l load) (float64, error) {
	args := append([]string{"--name=bench", "--ioengine=nbd", "--uri=" + uri, "--output-format=json"}, l.args...)
	out, err := exec.CommandContext(ctx, "fio", args...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("fio %s: %w: %s", strings.Join(l.args, " "), err, out[max(0, len(out)-300):])
	}
	begin := strings.IndexByte(string(out), '{')
	if begin < 0 {
		return 0, fmt.Errorf("fio printed no JSON: %s", out)
	}
	type direction struct {
		Bytes float64 `json:"bw_bytes"`
		IOPS  float64 `json:"iops"`
	}
	var report struct {
		Jobs []struct {
			Error       int
			Read, Write direction
		}
	}
	if err := json.NewDecoder(strings.NewReader(string(out[begin:]))).Decode(&report); err != nil {
		return 0, fmt.Errorf("read what fio printed: %w", err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Error != 0 {
		return 0, fmt.Errorf("fio failed: %+v", report.Jobs)
	}
	j := report.Jobs[0]
	if l.unit == "MiB/s" {
		return (j.Read.Bytes + j.Write.Bytes) / mib, nil
	}
	return (j.Read.IOPS + j.Write.IOPS) / 1000, nil
}

// beside runs each load on both devices by turns and compares the medians.
func beside(ctx context.Context, runs int, loads []load, reach float64, peer string, ours, theirs func(load) (float64, error)) ([]measurement, error) {
	var measures []measurement
	for _, l := range loads {
		var a, b []float64
		for range runs {
			x, err := ours(l)
			if err != nil {
				return nil, fmt.Errorf("%s, ours: %w", l.name, err)
			}
			y, err := theirs(l)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", l.name, peer, err)
			}
			a, b = append(a, x), append(b, y)
		}
		measures = append(measures, measurement{
			Name: l.name, Unit: l.unit, Ours: median(a), Runs: runs, Peer: peer, PeerValue: median(b), Reach: reach, AtLeast: true,
		})
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return measures, nil
}

// nbdWarmRow reads what is in the server's memory, and the peer in the page cache.
func nbdWarmRow(ctx context.Context, b *bench) ([]measurement, error) {
	// Within the server's cache of decoded frames.
	where := []string{fmt.Sprintf("--offset=%d", blockStart), "--size=12M", "--time_based", "--runtime=1"}
	loads := []load{
		{"NBD read, warm, sequential 128 KiB at depth 8", "MiB/s", append([]string{"--rw=read", "--bs=128k", "--iodepth=8"}, where...)},
		{"NBD read, warm, random 4 KiB at depth 32", "kIOPS", append([]string{"--rw=randread", "--bs=4k", "--iodepth=32"}, where...)},
	}
	return b.withBlocks(ctx, func(s *blockSite, dir string) ([]measurement, error) {
		socket := filepath.Join(dir, "nbdkit.sock")
		stop, err := peerServer(ctx, socket, "nbdkit", "-f", "-r", "-U", socket, "file", s.image)
		if err != nil {
			return nil, err
		}
		defer stop()
		return beside(ctx, 5, loads, 0.7, "nbdkit file",
			func(l load) (float64, error) { return fio(ctx, s.uri, l) },
			func(l load) (float64, error) { return fio(ctx, "nbd+unix:///?socket="+socket, l) })
	})
}

// nbdColdRow reads the data with empty caches: that of the server, which is
// restarted, and the system's.
func nbdColdRow(ctx context.Context, b *bench) ([]measurement, error) {
	loads := []load{{"NBD read, cold, sequential 256 KiB at depth 8", "MiB/s", []string{
		"--rw=read", "--bs=256k", "--iodepth=8", fmt.Sprintf("--offset=%d", blockStart), fmt.Sprintf("--size=%d", blockSize-blockStart),
	}}}
	return b.withBlocks(ctx, func(s *blockSite, dir string) ([]measurement, error) {
		packed := filepath.Join(dir, "peer.qcow2")
		if err := command(ctx, "qemu-img", "convert", "-c", "-O", "qcow2", s.image, packed); err != nil {
			return nil, err
		}
		return beside(ctx, 3, loads, 2, "qemu-nbd, compressed qcow2",
			func(l load) (float64, error) {
				if err := errors.Join(s.restart(ctx), cold(s.Dir)); err != nil {
					return 0, err
				}
				return coldRead(ctx, s.uri, l)
			},
			func(l load) (float64, error) {
				socket := filepath.Join(dir, "qemu-nbd.sock")
				stop, err := peerServer(ctx, socket, "qemu-nbd", "-r", "-t", "-k", socket, "-f", "qcow2", packed)
				if err != nil {
					return 0, err
				}
				defer stop()
				if err := cold(packed); err != nil {
					return 0, err
				}
				return coldRead(ctx, "nbd+unix:///?socket="+socket, l)
			})
	})
}

// coldRead first reads a block that lies elsewhere: emptying the caches drops the
// programs of both sides, too, and the row is about data.
func coldRead(ctx context.Context, uri string, l load) (float64, error) {
	if _, err := fio(ctx, uri, load{args: []string{"--rw=read", "--bs=4k", "--size=4k"}}); err != nil {
		return 0, err
	}
	return fio(ctx, uri, l)
}

// nbdWriteRow writes with flushes: to an instance's disk, and to a fresh overlay
// over the same image. The second pass of the first load writes where the first did.
func nbdWriteRow(ctx context.Context, b *bench) ([]measurement, error) {
	small := []string{"--rw=randwrite", "--bs=4k", fmt.Sprintf("--offset=%d", blockStart), "--size=256M"}
	loads := []load{
		{"NBD write, 4 KiB, a flush after each", "kIOPS", append([]string{"--iodepth=1", "--fsync=1", "--io_size=4M"}, small...)},
		{"the same where it was written before", "kIOPS", append([]string{"--iodepth=1", "--fsync=1", "--io_size=4M"}, small...)},
		{"NBD write, 4 KiB at depth 32, a flush after 32", "kIOPS", append([]string{"--iodepth=32", "--fsync=32", "--io_size=32M"}, small...)},
		{"NBD write, sequential 256 KiB, a flush after 4 MiB", "MiB/s", []string{
			"--rw=write", "--bs=256k", "--iodepth=8", "--fsync=16", fmt.Sprintf("--offset=%d", blockStart+256*mib), "--size=512M",
		}},
	}
	return b.withBlocks(ctx, func(s *blockSite, dir string) ([]measurement, error) {
		const runs = 5
		ours, theirs := make([][]float64, len(loads)), make([][]float64, len(loads))
		for range runs {
			overlay, socket := filepath.Join(dir, "overlay.qcow2"), filepath.Join(dir, "qemu-nbd.sock")
			if err := errors.Join(os.RemoveAll(overlay), command(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", s.image, overlay)); err != nil {
				return nil, err
			}
			stop, err := peerServer(ctx, socket, "qemu-nbd", "-t", "-k", socket, "-f", "qcow2", overlay)
			if err != nil {
				return nil, err
			}
			for i, l := range loads {
				x, err := fio(ctx, s.uri, l)
				if err == nil {
					ours[i] = append(ours[i], x)
					x, err = fio(ctx, "nbd+unix:///?socket="+socket, l)
					theirs[i] = append(theirs[i], x)
				}
				if err != nil {
					stop()
					return nil, fmt.Errorf("%s: %w", l.name, err)
				}
			}
			stop()
		}
		var measures []measurement
		for i, l := range loads {
			measures = append(measures, measurement{
				Name: l.name, Unit: l.unit, Ours: median(ours[i]), Runs: runs,
				Peer: "qemu-nbd, qcow2 overlay", PeerValue: median(theirs[i]), Reach: 0.7, AtLeast: true,
			})
		}
		return measures, nil
	})
}
