// Package inventory finds out what a source server is: its processors, memory,
// network interfaces, operating system, firmware and disks. It reads /proc, /sys
// and /etc only, starts no programs and changes nothing.
//
// A disk image file is another machine's disk: of that machine only the disks
// are known, and what the user says in Overrides.
package inventory
