// Package blocktrack finds what changed on the disks of a source server.
//
// A Tracker names the ranges that may have changed; Read reads them, several at
// a time, and hands on the chunks whose content differs from a Table of digests:
// what the vault holds. The digest has the last word, so a tracker may name too
// much and never too little.
//
// What it guarantees: every chunk of the ranges asked for was read, or Read
// returns an error that says which disk and where. A disk that vanished, shrank
// or cannot be read is a *GoneError, *ShrunkError or *ReadError; nothing is ever
// taken for zeros because it could not be read.
//
// What it does not: a pass over a disk in use is no moment in time. The caller
// gets one by seeing a whole pass that finds nothing changed.
package blocktrack
