package blob

import "lifeboat/internal/durable"

// OpenDirWith opens a store whose durable operations a test stands between.
func OpenDirWith(path string, files durable.Files) (*Dir, error) { return openDir(path, files) }
