package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// StartMachine starts the machine of an instance that was stopped.
func (c *Client) StartMachine(ctx context.Context, instance string) error {
	return c.power(ctx, instance, "start")
}

// StartMachineFromVault is StartMachine for an instance whose disks the server's host has
// lost: they are made again as they were shipped to the vault.
func (c *Client) StartMachineFromVault(ctx context.Context, instance string) error {
	return c.power(ctx, instance, "start-from-vault")
}

// StopMachine begins to stop the machine of an instance; AwaitState tells when it
// is off.
func (c *Client) StopMachine(ctx context.Context, instance string) error {
	return c.power(ctx, instance, "stop")
}

func (c *Client) power(ctx context.Context, instance, verb string) error {
	answer, err := c.beside(ctx, http.MethodPost, nil, "recovery-instances", instance, verb)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// AwaitState looks at an instance until it is in one of the states, and returns
// it.
func (c *Client) AwaitState(ctx context.Context, instance string, states ...string) (Instance, error) {
	for {
		found, err := c.FindInstances(ctx, []string{instance})
		if err != nil {
			return Instance{}, err
		}
		for _, s := range states {
			if found[0].State == s {
				return found[0], nil
			}
		}
		if err := pause(ctx, c.poll/4); err != nil {
			return Instance{}, err
		}
	}
}

// Console copies the serial console of an instance to w; with follow it goes on
// with what is printed until ctx ends.
func (c *Client) Console(ctx context.Context, instance string, follow bool, w io.Writer) error {
	for at := int64(0); ; {
		n, err := c.consoleFrom(ctx, instance, at, w)
		at += n
		if err != nil || !follow {
			return err
		}
		if err := pause(ctx, c.poll/4); err != nil {
			return nil //nolint:nilerr // the person has seen enough
		}
	}
}

// consoleFrom copies what was printed after the first at bytes.
func (c *Client) consoleFrom(ctx context.Context, instance string, at int64, w io.Writer) (int64, error) {
	answer, err := c.beside(ctx, http.MethodGet, func(r *http.Request) {
		if at > 0 {
			r.Header.Set("Range", "bytes="+strconv.FormatInt(at, 10)+"-")
		}
	}, "recovery-instances", instance, "console")
	if errors.Is(err, errNothingThere) {
		return 0, nil // nothing new
	}
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if at > 0 && answer.StatusCode != http.StatusPartialContent {
		return 0, fmt.Errorf("read the console of %s: the server does not serve parts of it", instance)
	}
	n, err := io.Copy(w, answer.Body)
	if err != nil && ctx.Err() == nil {
		return n, fmt.Errorf("read the console of %s: %w", instance, err)
	}
	return n, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
