// Package stamp writes numbered operations to files and block devices in an order
// that is known beforehand, and judges whether an image holds a prefix of them.
//
// The model. A Plan is a function from a number to an operation: its target, its
// blocks of 4096 bytes and its way of writing. One Writer carries out operations
// 1, 2, 3, ... and begins none before the one before it is durable, whichever disks
// the two lie on. So at any moment T there is a number k of operations that were
// durable, and nothing beyond operation k+1 had begun. All disks together as they
// were at T, after a journal's replay where there is one, therefore hold
//
//   - in every block what the last of the operations 1..k left there (a stamp, or
//     zeros where it was punched or never written), and
//   - in the blocks of operation k+1 either that or what k+1 writes, sector by
//     sector; a replaced file is the old or the new one as a whole.
//
// Check finds every such k of an image, or tells what contradicts all of them. An
// image that lacks one block of an old operation, mixes two moments of one disk, or
// has one disk older than another, has none. That an image is recent enough, and
// not from the future, is decided with Log: the moments at which operations were
// durable.
//
// Every stamp carries seed, number, target, position and a checksum, and the rest of
// its block follows from these, so an image is judged by the seed alone.
package stamp
