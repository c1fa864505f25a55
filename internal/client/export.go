package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
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

// emptyHash is the SHA-256 of no bytes, in hexadecimal: requests for a disk have no body.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Disk begins the transfer of the nth disk of a server at a point. *Refusal when
// there is none.
func (c *Client) Disk(ctx context.Context, server, point string, n int) (*DiskStream, error) {
	target := fmt.Sprintf("%s/lifeboat/v1/source-servers/%s/points/%s/disks/%d",
		strings.TrimSuffix(c.endpoint, "/"), url.PathEscape(server), url.PathEscape(point), n)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for disk %d: %w", n, err)
	}
	request.Header.Set("Accept", diskstream.MediaType)
	request.Header.Set("Accept-Encoding", "identity")
	if !local(request.URL.Hostname()) {
		request.Header.Set("Accept-Encoding", "zstd")
	}
	if err := c.sign(ctx, request); err != nil {
		return nil, err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		return nil, exportRefusal(answer)
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

func (c *Client) sign(ctx context.Context, r *http.Request) error {
	o := c.api.Options()
	keys, err := o.Credentials.Retrieve(ctx)
	if err != nil {
		return fmt.Errorf("no access key is set: %w. %s", err, getEnvironment)
	}
	return v4.NewSigner().SignHTTP(ctx, keys, r, emptyHash, "drs", o.Region, c.now())
}

// exportRefusal reads the body of an answer that is not a disk.
func exportRefusal(answer *http.Response) error {
	var body struct{ Message string }
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	if err != nil || body.Message == "" {
		return fmt.Errorf("the server answered %s where a disk was asked for", answer.Status)
	}
	code := answer.Header.Get("X-Amzn-Errortype")
	if answer.StatusCode >= 500 {
		return fmt.Errorf("the server could not do it: %s", body.Message)
	}
	return &Refusal{Code: code, Message: body.Message}
}

// local tells whether the server is on this machine, where compressing only
// costs time.
func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
