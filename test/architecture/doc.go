// Package architecture holds the test that keeps Lifeboat's imports pointing
// downward: bytes flow from source over replication and vault to recovery, and
// the wings meet in package server only. The table in rules_test.go is the map of the
// house; .golangci.yml repeats its coarse lines for editors.
package architecture
