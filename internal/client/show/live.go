package show

import (
	"fmt"
	"io"
	"strings"
	"time"

	"lifeboat/internal/client"
)

// Live shows a job while it runs: its log line by line, and on a terminal one
// line of status below that changes in place. It implements client.Watcher.
type Live struct {
	W        io.Writer
	Terminal bool
	Now      func() time.Time

	drawn bool // the status line is on the screen
	frame int
}

const clearLine = "\r\x1b[K"

// Line implements client.Watcher.
func (l *Live) Line(line client.LogLine) {
	l.clear()
	p := Printer{W: l.W, Now: l.Now()}
	p.Line(line)
}

// Progress implements client.Watcher.
func (l *Live) Progress(j client.Job) {
	if j.Done() {
		l.clear()
		return
	}
	l.draw(statusLine(j, l.Now()))
}

// Away implements client.Watcher.
func (l *Live) Away(err error) {
	l.clear()
	fmt.Fprintf(l.W, "The server does not answer. Its jobs go on when it is back; still trying. (%v)\n", err)
}

// Back implements client.Watcher.
func (l *Live) Back() {
	l.clear()
	fmt.Fprintln(l.W, "The server answers again.")
}

// Transfer shows that a transfer of a disk of size bytes has reached the byte at
// and brought so much data, on a terminal only. The caller says how often.
func (l *Live) Transfer(at, size, data int64, took time.Duration) {
	part := 1.0
	if size > 0 {
		part = float64(at) / float64(size)
	}
	const width = 30
	full := int(part * width)
	rate := int64(0)
	if took > 0 {
		rate = int64(float64(data) / took.Seconds())
	}
	left := ""
	if part > 0.01 && part < 1 {
		left = ", " + Duration(time.Duration(float64(took)*(1-part)/part)) + " left"
	}
	l.draw(fmt.Sprintf("[%s%s] %3d %% of %s, %s/s%s",
		strings.Repeat("#", full), strings.Repeat(".", width-full), int(part*100), Bytes(size), Bytes(rate), left))
}

// Part shows which part of some work is done, 0 to 1, and what to say of it, on a
// terminal only. The caller says how often.
func (l *Live) Part(part float64, text string, took time.Duration) {
	const width = 30
	part = min(max(part, 0), 1)
	full := int(part * width)
	left := ""
	if part > 0.01 && part < 1 {
		left = ", " + Duration(time.Duration(float64(took)*(1-part)/part)) + " left"
	}
	l.draw(fmt.Sprintf("[%s%s] %3d %%, %s%s", strings.Repeat("#", full), strings.Repeat(".", width-full), int(part*100), text, left))
}

// End takes the status line off the screen.
func (l *Live) End() { l.clear() }

// statusLine counts the servers of a running job.
func statusLine(j client.Job, now time.Time) string {
	counts := map[string]int{}
	for _, s := range j.Servers {
		counts[s.Status]++
	}
	var parts []string
	for _, status := range []string{"LAUNCHED", "TERMINATED", "IN_PROGRESS", "PENDING", "FAILED"} {
		if n := counts[status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, launchStatus(status)))
		}
	}
	text := strings.Join(parts, ", ")
	if j.Started != nil {
		text += " after " + Duration(now.Sub(*j.Started))
	}
	return text
}

func (l *Live) draw(text string) {
	if !l.Terminal {
		return
	}
	const frames = `|/-\`
	l.frame = (l.frame + 1) % len(frames)
	fmt.Fprintf(l.W, "%s%c %s", clearLine, frames[l.frame], text)
	l.drawn = true
}

func (l *Live) clear() {
	if l.drawn {
		fmt.Fprint(l.W, clearLine)
		l.drawn = false
	}
}
