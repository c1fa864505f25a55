package throttle

import (
	"math"
	"sync"
	"testing"
	"time"
)

func TestTake(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	limit := New(func(operation string) Rate {
		if operation == "free" {
			return Rate{}
		}
		return Rate{PerSecond: 2, Burst: 3}
	}, func() time.Time { return now })
	take := func(account, operation string, want time.Duration) {
		t.Helper()
		got := limit.Take(account, operation)
		if math.Abs(float64(got-want)) > float64(time.Microsecond) {
			t.Errorf("%s of %s waits %s, want %s", operation, account, got, want)
		}
	}
	for range 3 {
		take("a", "x", 0)
	}
	take("a", "x", 500*time.Millisecond)
	take("a", "y", 0) // another operation
	take("b", "x", 0) // another account
	now = now.Add(250 * time.Millisecond)
	take("a", "x", 250*time.Millisecond)
	now = now.Add(250 * time.Millisecond)
	take("a", "x", 0)
	take("a", "x", 500*time.Millisecond)
	now = now.Add(-time.Hour) // a clock that is set back neither gives nor takes
	take("a", "x", 500*time.Millisecond)
	now = now.Add(2 * time.Hour)
	for range 3 { // no more than the burst, however long it was quiet
		take("a", "x", 0)
	}
	take("a", "x", 500*time.Millisecond)
	for range 1000 {
		take("a", "free", 0)
	}
	if n := limit.Refused()["x"]; n != 5 {
		t.Errorf("%d refused, want 5", n)
	}
}

// However many ask at once, no more than the burst get through.
func TestConcurrent(t *testing.T) {
	now := time.Now()
	limit := New(func(string) Rate { return Rate{PerSecond: 1, Burst: 100} }, func() time.Time { return now })
	var wg sync.WaitGroup
	var mu sync.Mutex
	through := 0
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if limit.Take("a", "x") == 0 {
					mu.Lock()
					through++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if through != 100 {
		t.Errorf("%d got through, want 100", through)
	}
}
