// Package qemu tracks the disks of a machine that QEMU runs, from outside, over QMP:
// nothing runs in the guest, and any guest will do.
//
// A dirty bitmap on each disk collects what is written. Swap is one QMP transaction
// over all disks: QEMU lets the requests under way end, puts a new bitmap in the old
// one's place, and from then on copies each block aside before the guest changes it
// (a backup job that copies nothing by itself, into an overlay file). Until Release
// the Devices read what the disks held at that moment, through QEMU's own NBD
// server, however busy the guest is.
//
// What it guarantees: every block that differs between the moments of two Swaps is
// named by the second, or the disk is named as a whole. Bitmaps live in QEMU's memory
// and die with it. They are not made persistent: a raw image cannot hold them, a qcow2
// image gets them only when QEMU ends in good order, and neither knows what was done
// to the image while no QEMU ran. A bitmap that is not found as it was left makes
// the next Swap name all of its disk. With Options.Keep they outlive the tracker's
// process, however that ends, and the next one goes on from its last Settle.
//
// A copy set aside is at most as large as what the guest writes until Release. Where
// the folder for it has little room the cut is refused or given up, and not the guest's
// writes: QEMU would fail those once a copy cannot be made. A guard, a process of its
// own, gives it up where the tracker's process is stopped, or too slow to.
package qemu
