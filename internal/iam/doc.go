// Package iam says who may speak to Lifeboat and proves it.
//
// People and their tools hold access keys and sign each request with AWS
// Signature Version 4; Verifier checks such a request and names the account it
// comes from. Agents hold a certificate of the server's own Authority that names
// their account and source server; it is issued once, against an install token,
// and lets an agent touch that one server only.
//
// Everything that must survive a restart lies in files of mode 0600 that are
// created by explicit functions (CreateAdminKey, CreateAuthority) and durable
// when those return. Loading never creates: an absent file is fs.ErrNotExist, a
// damaged or foreign one is a *DamagedError, and neither is ever replaced.
// Secrets are of type Secret, which prints and logs as "[redacted]".
//
// The package keeps no list of revoked certificates or tokens: a token ends by
// its expiry, a certificate by its expiry or by deleting its source server.
package iam
