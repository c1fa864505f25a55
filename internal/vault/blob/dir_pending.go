package blob

// OpenDir returns the store in an existing directory.
func OpenDir(path string) (*Dir, error) { panic("pending") }

// Dir keeps objects as files below one directory.
type Dir struct{}
