// Package export serves the disks of recovery points over HTTP, byte for byte,
// without booting them: GET /lifeboat/v1/source-servers/{s}/points/{pit}/disks/{n}
// answers a disk stream (docs/formats/export-stream.md). It sends what holds data
// and skips holes, reads ahead in parallel within fixed memory, and tells in the
// stream itself when the rest cannot come: a client never takes a part for the
// whole. It checks to whom a server belongs, not signatures.
package export
