package blocktrack_test

import (
	"testing"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/tracktest"
)

func TestScanIsATracker(t *testing.T) {
	tracktest.Suite(t, func(t *testing.T, devices []string, _ int64) blocktrack.Tracker {
		return blocktrack.Scan{Disks: len(devices)}
	})
}
