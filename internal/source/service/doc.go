// Package service makes an agent a service of its machine under systemd: it puts
// the program, its settings and a unit in place, starts it, waits until it
// replicates, puts a newer program in place, and takes all away again.
//
// Every step can be done again, so whatever was interrupted is done again. Files
// are replaced whole. The agent's state directory, which makes it the source server
// that it is, is never touched but by Uninstall with Purge.
//
// The install token lies in a file of its own that only root may read, until the
// agent is registered; it is never in the unit, the settings or a command line.
package service
