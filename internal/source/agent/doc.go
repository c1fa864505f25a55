// Package agent replicates the disks of one source server to a replication
// server: it registers once, keeps its identity, and then cuts epochs for as
// long as it runs.
//
// What it guarantees: it forgets a change only after the server acknowledged it
// as durable. A break at any moment, of the agent, the server or the network,
// costs at most the resending of what was not acknowledged. A recovery point is
// called crash-consistent only after a complete pass over all disks that found
// nothing changed since the pass before.
//
// What it does not: a disk that never rests and cannot be frozen gets fuzzy points
// only, and says so.
package agent
