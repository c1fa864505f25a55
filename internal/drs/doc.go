// Package drs is the vocabulary of Lifeboat: the typed identifiers, resources,
// states, rules, quotas and error kinds of the AWS Elastic Disaster Recovery
// model, in Go terms. It does no I/O and imports the standard library only;
// every other package may import it.
//
// The wire shapes of the API live in package drsapi and are converted at the
// edge; the tables that hold these resources live in package db.
package drs
