// Package ingest is the replication server: it lets agents in, turns what they
// send into commits of the vault, and tells the catalogue how replication stands.
//
// What it guarantees: an epoch is acknowledged only after the vault's commit
// returned, so what an agent was told is durable stays so. An agent touches the
// main branch of the server that its certificate names and nothing else. Of
// several sessions of one server the newest wins and the others are told.
//
// What it does not: the catalogue may lag behind the vault. A recovery point that
// was committed but could not be recorded is still in the vault, and is found
// when the catalogue is next compared with it.
package ingest
