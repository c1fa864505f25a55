// Package ebpf tracks writes to the block devices of this machine with programs in
// the kernel: no module, no compiler, no reboot.
//
// What it guarantees: every write that the kernel's block layer carries to a
// watched disk is in a Swap after it completed. Where that cannot be vouched for,
// Swap returns everything and says why; Open refuses disks that can be written
// behind the block layer's back.
//
// What it does not: it cannot hold a write, so what is read of a busy disk is no
// moment in time; it does not see what a device is told through an interface of
// its own (NVMe format and sanitize), or what another machine writes to a shared
// disk. Writes from before Open are unknown: the first Swap returns everything.
//
// OpenPinned lets the kernel go on while no process runs: what was written then, and
// what was handed out and not settled, is in its successor's first Swap. Pins end with
// the boot; a disk is told from another that took over its number by the kernel's
// sequence of disks.
//
// docs/decisions/0025 and 0111 give the reasons, bpf/track.c the programs.
package ebpf
