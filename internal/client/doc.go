// Package client is the human's side of the DRS API: it finds servers, points,
// jobs and instances by the names people use, plans recoveries before it orders
// them, follows jobs to their end and fetches disks. It speaks to any server of
// the DRS API through the AWS SDK, and reads the members that Lifeboat adds
// where they are there.
//
// Its types are what `--json` prints: members are only ever added. Package show
// turns them into text. A Client is safe for concurrent use.
package client
