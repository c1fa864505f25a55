package agent

import (
	"testing"
	"time"
)

// The lag follows a clock that ran ahead and was put right, and else only goes forward.
func TestLagOverAWrongClock(t *testing.T) {
	m := NewMetrics()
	now := time.Now()
	for _, step := range []struct{ told, want time.Duration }{
		{-time.Minute, -time.Minute}, {-2 * time.Minute, -time.Minute}, {time.Hour, time.Hour}, {-30 * time.Second, -30 * time.Second},
	} {
		m.holds(now.Add(step.told))
		if got := time.Unix(0, m.asOf.Load()).Sub(now); got != step.want {
			t.Errorf("told %s: holds %s, want %s", step.told, got, step.want)
		}
	}
	m.holds(time.Time{})
	if m.asOf.Load() == 0 {
		t.Error("what is not known took the place of what is")
	}
}
