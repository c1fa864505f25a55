package guest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"sync"
	"time"
)

// Line is one line of a serial console and the moment its end was read.
type Line struct {
	Text string
	At   time.Time
}

// Console collects the lines of a machine's serial console, from an io.Writer
// it is, and lets any number of goroutines wait for them.
type Console struct {
	mu      sync.Mutex
	lines   []Line
	partial []byte
	changed chan struct{} // closed and replaced at every change
	end     error         // why no more lines come, nil while they may
}

// NewConsole returns an empty console.
func NewConsole() *Console { return &Console{changed: make(chan struct{})} }

// maxPartial bounds a line without an end.
const maxPartial = 64 << 10

// Write takes what the machine printed. It never fails.
func (c *Console) Write(p []byte) (int, error) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partial = append(c.partial, p...)
	for {
		end := bytes.IndexByte(c.partial, '\n')
		if end < 0 && len(c.partial) > maxPartial {
			end = len(c.partial) - 1
		}
		if end < 0 {
			break
		}
		c.lines = append(c.lines, Line{string(bytes.TrimRight(c.partial[:end], "\r")), now})
		c.partial = c.partial[end+1:]
	}
	c.announceLocked()
	return len(p), nil
}

// Close says that no more lines come, and why; waiters then fail with that reason.
func (c *Console) Close(reason error) {
	if reason == nil {
		reason = io.EOF
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end == nil {
		c.end = reason
		c.announceLocked()
	}
}

func (c *Console) announceLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Lines returns the lines from number from (0 is the first) on.
func (c *Console) Lines(from int) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from >= len(c.lines) {
		return nil
	}
	return append([]Line(nil), c.lines[from:]...)
}

// Tail returns the last n lines as text, for an error message.
func (c *Console) Tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var text bytes.Buffer
	for _, line := range c.lines[len(c.lines)-min(n, len(c.lines)):] {
		fmt.Fprintf(&text, "%s\n", line.Text)
	}
	text.Write(c.partial)
	return text.String()
}

// Match is a line that matched a pattern.
type Match struct {
	Line
	Groups []string // as regexp.FindStringSubmatch returns them
	Next   int      // number of the line after it
}

// Wait returns the first line from number from on that matches the pattern,
// waiting for it until the machine's console ends or ctx does.
func (c *Console) Wait(ctx context.Context, from int, pattern *regexp.Regexp) (Match, error) {
	for {
		c.mu.Lock()
		for ; from < len(c.lines); from++ {
			if groups := pattern.FindStringSubmatch(c.lines[from].Text); groups != nil {
				match := Match{c.lines[from], groups, from + 1}
				c.mu.Unlock()
				return match, nil
			}
		}
		changed, end := c.changed, c.end
		c.mu.Unlock()
		if end != nil {
			return Match{}, fmt.Errorf("console ended without %q: %w", pattern, end)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Match{}, fmt.Errorf("console shows no %q: %w", pattern, context.Cause(ctx))
		}
	}
}

// Last returns the latest line so far that matches the pattern.
func (c *Console) Last(pattern *regexp.Regexp) (Match, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.lines) - 1; i >= 0; i-- {
		if groups := pattern.FindStringSubmatch(c.lines[i].Text); groups != nil {
			return Match{c.lines[i], groups, i + 1}, true
		}
	}
	return Match{}, false
}
