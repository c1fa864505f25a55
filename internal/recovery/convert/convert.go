// Package convert decides what a copied disk needs to boot as a recovery
// machine. It looks at the disk's partition table and boot code to tell the
// firmware that starts it, and fits the machine's size to the host.
//
// Everything here is a pure function of its arguments. Disks are read through
// io.ReaderAt, a few hundred KiB of a real disk and 32 MiB of the most hostile
// one, and are never trusted: damaged tables give a Layout that says so, never a
// panic or a large allocation. Nothing is ever written.
package convert
