package branchlog

import (
	"context"

	"lifeboat/internal/durable"
)

// OpenWith is Open with files of another size, in blocks, and with faults.
func OpenWith(dir string, key []byte, base Base, files durable.Files, fileBlocks uint32) (*Log, error) {
	return open(dir, key, base, files, fileBlocks)
}

// Collect runs the collector until it finds nothing to do.
func (l *Log) Collect() error {
	for {
		worked, err := l.collectOne(context.Background())
		if !worked || err != nil {
			return err
		}
	}
}
