package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"lifeboat/internal/diskstream"
)

// DiskStream is a disk on its way here. Close it when done.
type DiskStream struct {
	*diskstream.Reader
	close []func() error
}

// Close ends the transfer.
func (d *DiskStream) Close() error {
	var errs []error
	for _, f := range d.close {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// Disk begins the transfer of the nth disk of a server at a point. *Refusal when
// there is none.
func (c *Client) Disk(ctx context.Context, server, point string, n int) (*DiskStream, error) {
	answer, err := c.beside(ctx, http.MethodGet, func(r *http.Request) { //nolint:bodyclose // DiskStream.Close closes it
		r.Header.Set("Accept", diskstream.MediaType)
		r.Header.Set("Accept-Encoding", "identity")
		if !local(r.URL.Hostname()) {
			r.Header.Set("Accept-Encoding", "zstd")
		}
	}, "source-servers", server, "points", point, "disks", strconv.Itoa(n))
	if err != nil {
		return nil, err
	}
	d := &DiskStream{close: []func() error{answer.Body.Close}}
	if err := d.begin(answer); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *DiskStream) begin(answer *http.Response) (err error) {
	if kind := answer.Header.Get("Content-Type"); kind != diskstream.MediaType {
		return fmt.Errorf("the server answered %q where a disk was asked for: it is no lifeboat server, or another version", kind)
	}
	var body io.Reader = answer.Body
	if answer.Header.Get("Content-Encoding") == "zstd" {
		decoder, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
		if err != nil {
			return fmt.Errorf("start decompressing: %w", err)
		}
		d.close = append(d.close, func() error { decoder.Close(); return nil })
		body = decoder
	}
	d.Reader, err = diskstream.NewReader(body)
	return err
}

// local tells whether the server is on this machine, where compressing only
// costs time.
func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
