// Package branchlog is a writable disk: a read-only base, and over it an
// append-only log of one branch's own writes. A recovery instance runs on one.
//
// It guarantees:
//   - a write, trim or zeroing that returned survives the end of this process,
//     however it ends; after Flush it survives the end of the machine;
//   - what was not flushed may be lost with the machine, from the end of the log
//     backwards: a torn end is recognised by its checksums and cut off by Open;
//   - damage to anything that was flushed is a *CorruptError, at Open or when it
//     is read, and never data;
//   - stored blocks are encrypted with AES-256-GCM and bound to their place, so
//     that neither their content nor their addresses can be read or exchanged
//     without the key (a nil key stores them in the clear, checksummed);
//   - space follows what is live: files that hold nothing current are deleted,
//     and files that are mostly dead are rewritten in the background.
//
// After a failed fsync, or a failed write other than for want of space, the log
// is finished: every later call returns that error. A write that finds no space
// fails alone, with syscall.ENOSPC, EDQUOT or EFBIG; of a long one, what lies
// before may have been written, as on any disk.
//
// The bytes on disk are described in docs/formats/branch-log.md. Whoever holds
// the disk can still put an older copy of the whole directory in its place; that
// is not detected.
package branchlog
