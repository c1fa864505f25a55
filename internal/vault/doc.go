// Package vault is the log-structured store of recovery points. It keeps, for
// every source server, branches of immutable epochs on a blob.Store and reads
// back the disks as they were at any kept point.
//
// What it guarantees:
//
//   - When Epoch.Commit returns nil, the epoch is readable after power loss. A
//     kill at any other moment leaves the previous commit intact.
//   - A commit is the creation of the branch's next manifest, which must not yet
//     exist: two writers of one branch can never both win.
//   - Bytes that fail a checksum, an authentication tag or the manifest chain
//     are reported as a *CorruptError and never returned as data.
//   - The blobs are the whole truth: packs and map runs are derived data, rebuilt
//     whenever they are absent or damaged.
//   - A recovery point that is listed reads as what it was when it was made, whatever was
//     folded, collected or dropped beside it. An open Image goes on reading the same.
//   - Maintain and Collect never delete what a point, a branch or an open Image needs,
//     and can be killed anywhere. They need no clock and no other process to stop.
//
// What it does not: it does not decide which points to keep (package retention does,
// when Maintain is called), and it does not protect a locked point from somebody who can
// delete the store's objects.
//
// The formats are described in docs/formats/vault-*.md.
package vault
