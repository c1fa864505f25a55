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
//   - The blobs are the whole truth: checkpoints and map runs are derived data,
//     rebuilt whenever they are absent or damaged.
//
// What it does not: it does not decide which points to keep, and does not yet
// collect segments that no manifest names.
//
// The formats are described in docs/formats/vault-*.md.
package vault
