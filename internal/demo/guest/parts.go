package guest

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// Parts are what machines of another make than Build's can be put together from:
// files in the user's cache, not to be changed.
type Parts struct {
	Kernel, Busybox string
	Modules         []string // in the order to load them
	Applets         []string // of busybox
}

// OpenParts returns parts with the kernel modules wanted and those they depend on,
// fetching the distribution's packages the first time. A module that the kernel has
// built in, or lacks, is left out.
func OpenParts(ctx context.Context, modules []string) (Parts, error) {
	name := kitVersion + "-" + hexDigest([]byte(strings.Join(modules, " ")))[:12]
	k, err := openNamedKit(ctx, name, modules)
	if err != nil {
		return Parts{}, fmt.Errorf("parts of a guest: %w", err)
	}
	p := Parts{Kernel: k.kernel(), Busybox: k.busybox(), Applets: k.Applets}
	for _, m := range k.Modules {
		p.Modules = append(p.Modules, k.module(m))
	}
	return p, nil
}

// Archive writes the archive that Linux unpacks into its first filesystem. The
// first error sticks and is returned by Close.
type Archive struct{ cpio *cpioWriter }

// NewArchive begins an archive.
func NewArchive(w io.Writer) Archive { return Archive{newCPIO(w)} }

// Dir adds a directory; those above it come first.
func (a Archive) Dir(name string) { a.cpio.dir(name) }

// File adds a file.
func (a Archive) File(name string, mode uint32, data []byte) { a.cpio.file(name, mode, data) }

// Link adds a symbolic link.
func (a Archive) Link(name, target string) {
	a.cpio.entry(name, cpioLink|0o777, 0, 0, []byte(target))
}

// Close ends the archive.
func (a Archive) Close() error {
	a.cpio.charDevice("dev/console", 5, 1) // or the first lines of init would go nowhere
	return a.cpio.close()
}
