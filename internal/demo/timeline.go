package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// timeline tells what happens, each line with the seconds since the beginning.
// On a terminal the line in work is rewritten in place.
type timeline struct {
	out      io.Writer
	terminal bool
	began    time.Time

	mu      sync.Mutex
	current string // text of the line in work, empty when there is none
	shown   int    // its width on the terminal
}

func newTimeline(out io.Writer, terminal bool) *timeline {
	return &timeline{out: out, terminal: terminal, began: time.Now()}
}

// say tells a line.
func (t *timeline) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lineLocked(fmt.Sprintf(format, args...))
	if t.current != "" {
		t.showLocked("")
	}
}

// heading tells a line that begins a part, and detail one that belongs to it;
// neither carries a time.
func (t *timeline) heading(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearLocked()
	fmt.Fprintf(t.out, "\n%s\n", t.bold(text))
}

func (t *timeline) detail(name, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "  %-38s %s\n", name, fmt.Sprintf(format, args...))
}

// progress begins a step. The returned function ends it with its outcome.
func (t *timeline) progress(doing string) (done func(format string, args ...any)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current = doing
	t.showLocked("")
	return func(format string, args ...any) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.current = ""
		t.lineLocked(fmt.Sprintf(format, args...))
	}
}

// update shows how far the step in work is; only people at a terminal see it.
func (t *timeline) update(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.showLocked(fmt.Sprintf(format, args...))
}

func (t *timeline) lineLocked(text string) {
	t.clearLocked()
	fmt.Fprintf(t.out, "%s%s\n", t.stamp(), text)
}

func (t *timeline) showLocked(state string) {
	if !t.terminal || t.current == "" {
		return
	}
	t.clearLocked()
	text := t.stamp() + t.current + " …"
	if state != "" {
		text += " " + state
	}
	// A line that wraps could not be rewritten.
	if runes := []rune(text); len(runes) > 118 {
		text = string(runes[:118])
	}
	t.shown = len([]rune(text))
	fmt.Fprint(t.out, text)
}

func (t *timeline) clearLocked() {
	if t.shown > 0 {
		fmt.Fprint(t.out, "\r"+strings.Repeat(" ", t.shown)+"\r")
		t.shown = 0
	}
}

func (t *timeline) stamp() string { return fmt.Sprintf("%6.1fs  ", time.Since(t.began).Seconds()) }

func (t *timeline) bold(text string) string {
	if !t.terminal {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

func megabytes(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	default:
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
