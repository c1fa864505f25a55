package agent

import (
	"testing"
	"time"
)

// All disks are looked at once in the time given, and no faster than the rate.
func TestAuditPace(t *testing.T) {
	start := time.Unix(0, 0)
	disks := []*disk{{size: 3<<20 + 4096}, {size: 64 << 20}}
	const total = 67<<20 + 4096
	for _, test := range []struct {
		name string
		in   time.Duration
		want time.Duration // until all has been looked at, at least
	}{
		{"a month", 30 * 24 * time.Hour, 30 * 24 * time.Hour},
		{"at once", time.Millisecond, 4 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			var u audit
			read, now := int64(0), start
			step := test.want / 1000
			for read < total {
				if n := u.due(now, total, test.in); n > 0 {
					_, r := u.next(disks, n)
					read += r.Length
					u.off = r.Offset + r.Length
				}
				if now = now.Add(step); now.Sub(start) > 2*test.want {
					t.Fatalf("%d of %d bytes after %s", read, int64(total), now.Sub(start))
				}
			}
			if took := now.Sub(start); took < test.want*9/10 {
				t.Errorf("took %s, want no less than %s", took, test.want)
			}
		})
	}
	var u audit
	if n := u.due(start.Add(time.Hour), total, -1); n != 0 {
		t.Errorf("%d bytes due of none", n)
	}
}
