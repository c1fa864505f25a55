package ingest

import "time"

// pace tells from how something shrinks when it will be gone. The zero value knows
// nothing yet.
type pace struct {
	most int64 // that was left, since when it shrinks
	at   time.Time
}

// ends takes note of what is left now and returns when nothing will be; zero where
// that cannot be told, as when it grows.
func (p *pace) ends(left int64, now time.Time) time.Time {
	if p.at.IsZero() || left >= p.most {
		p.most, p.at = left, now
		return time.Time{}
	}
	took := now.Sub(p.at)
	if left <= 0 || took <= 0 {
		return time.Time{}
	}
	return now.Add(time.Duration(float64(took) / float64(p.most-left) * float64(left))).UTC()
}
