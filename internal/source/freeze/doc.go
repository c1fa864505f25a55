// Package freeze holds all mounted filesystems of a set of disks still for a
// moment, so that they can be read at one point in time.
//
// What it guarantees: no filesystem stays frozen for longer than the bound, even if
// the process that froze it is stopped, killed or stuck: a guard, a process of its
// own started beforehand, thaws it then. Frozen.Thaw tells whether the guard had to.
//
// What it does not: writes that come from no filesystem (a database on a bare
// partition, swap) go on. Who reads must see for himself that nothing was written.
package freeze
