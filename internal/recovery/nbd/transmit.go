package nbd

import (
	"context"
	"fmt"
	"io"
)

// transmit reads requests until the client leaves and hands them to workers. It
// returns when every request that was read has been answered or the answer
// cannot be delivered.
func (c *conn) transmit(ctx context.Context) error {
	defer c.workers.Wait()
	defer close(c.work)

	var head [requestLen]byte
	for n := 0; ; {
		if _, err := io.ReadFull(c.br, head[:]); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		r := requestPool.Get().(*request)
		if err := r.decode(head[:]); err != nil {
			return err
		}
		if r.cmd == cmdDisconnect {
			r.free()
			return nil
		}
		if bad := c.check(r); bad != 0 {
			if err := c.skip(r); err != nil {
				return err
			}
			c.fail(r, bad)
			continue
		}
		if err := c.receive(ctx, r); err != nil {
			return err
		}
		select {
		case c.work <- r: // a worker was idle
		default:
			if n < c.srv.cfg.MaxInFlight {
				n++
				c.workers.Go(func() { c.worker(ctx, r) })
			} else {
				c.work <- r
			}
		}
	}
}

// skip reads past the payload of a request that is refused.
func (c *conn) skip(r *request) error {
	if r.cmd != cmdWrite {
		return nil
	}
	if _, err := io.CopyN(io.Discard, c.br, int64(r.length)); err != nil {
		return fmt.Errorf("skip payload: %w", err)
	}
	return nil
}

// receive reserves memory for the request's payload and, for a write, reads it.
// On error nothing stays reserved.
func (c *conn) receive(ctx context.Context, r *request) error {
	if r.cmd != cmdRead && r.cmd != cmdWrite {
		return nil
	}
	cost := bufferCost(int(r.length))
	if err := c.memory.Acquire(ctx, cost); err != nil {
		return err
	}
	r.cost = cost
	if r.cmd == cmdRead {
		return nil
	}
	r.payload = getBuffer(int(r.length))
	if _, err := io.ReadFull(c.br, r.payload.bytes); err != nil {
		c.done(r)
		return fmt.Errorf("read payload: %w", err)
	}
	return nil
}

// worker works on r and then on whatever else is read, until the end.
func (c *conn) worker(ctx context.Context, r *request) {
	c.handle(ctx, r)
	for r := range c.work {
		c.handle(ctx, r)
	}
}

// handle does what r asks for and sends the reply.
func (c *conn) handle(ctx context.Context, r *request) {
	var err error
	switch r.cmd {
	case cmdRead:
		err = c.read(ctx, r)
	case cmdBlockStatus:
		err = c.blockStatus(ctx, r)
	default:
		err = c.change(ctx, r)
	}
	if err != nil {
		code := codeOf(err)
		c.faults.note(c.log, r, code, err)
		c.fail(r, code)
		return
	}
	c.send(r)
}

// change handles the commands that answer without data.
func (c *conn) change(ctx context.Context, r *request) error {
	t := c.target
	off, n := int64(r.offset), int64(r.length)
	var err error
	switch r.cmd {
	case cmdWrite:
		_, err = t.writer.WriteAt(r.payload.bytes, off)
	case cmdTrim:
		err = t.trim.Trim(ctx, off, n)
	case cmdWriteZeroes:
		err = t.writeZeroes(ctx, off, n, r.flags)
	case cmdCache:
		err = t.cache.Cache(ctx, off, n)
	}
	// A read-only device has nothing to flush, and a hint changes nothing.
	if err == nil && t.writer != nil && r.cmd != cmdCache && (r.cmd == cmdFlush || r.flags&cmdFlagFUA != 0) {
		err = t.writer.Flush(ctx)
	}
	if err == nil {
		r.succeed()
	}
	return err
}
