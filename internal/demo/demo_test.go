package demo

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lifeboat/internal/demo/guest"
)

// Piped output has every outcome on a line of its own and no control characters.
func TestTimelineWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	line := newTimeline(&out, false)
	done := line.progress("working")
	line.update("half way")
	done("worked %d times", 3)
	line.say("%s", line.bold("the end"))
	if got := out.String(); strings.ContainsAny(got, "\r\x1b") || strings.Contains(got, "half way") ||
		!regexp.MustCompile(`^ +\d+\.\ds  worked 3 times\n +\d+\.\ds  the end\n$`).MatchString(got) {
		t.Errorf("got %q", got)
	}
}

// Promises broken by a recovered machine are found.
func TestVerdict(t *testing.T) {
	whole := func(last int) guest.Ledger { return guest.Ledger{First: 1, Last: last} }
	for name, c := range map[string]struct {
		ledger guest.Ledger
		kept   bool
	}{
		"up to the point":           {whole(20), true},
		"one in flight came too":    {whole(31), true},
		"order before point lost":   {whole(19), false},
		"orders out of thin air":    {whole(32), false},
		"order missing in the line": {guest.Ledger{First: 1, Last: 25, Missing: 1}, false},
		"torn order":                {guest.Ledger{First: 1, Last: 25, Torn: 1}, false},
	} {
		err := verdict(recovered{ledger: c.ledger}, disaster{lastConfirmed: 30}, 20)
		if (err == nil) != c.kept {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A demo whose binary fails tells what failed and where the logs are.
func TestRunTellsWhatFailed(t *testing.T) {
	var out bytes.Buffer
	dir := filepath.Join(t.TempDir(), "work")
	err := Run(context.Background(), Config{Binary: "/bin/false", Dir: dir, Out: &out})
	if err == nil || !strings.Contains(err.Error(), "the server ended by itself") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out.String(), dir) {
		t.Errorf("does not tell where the logs are:\n%s", out.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "server.log")); err != nil {
		t.Error(err)
	}
}
