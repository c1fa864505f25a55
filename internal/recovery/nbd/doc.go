// Package nbd serves block devices over the NBD protocol: fixed newstyle
// negotiation, TLS, structured replies with holes, block status, trim, write
// zeroes, cache, flush and FUA, to any number of connections.
//
// It guarantees:
//   - an answered flush, or a write answered with FUA, is as durable as the
//     Device's own Flush, for the writes of every connection to that Device;
//   - a peer cannot make it allocate by a length it sent: option data, names and
//     payloads are bounded first, and the payload memory of a connection has a
//     fixed budget;
//   - a bad request gets the NBD error that fits and leaves the connection
//     usable; a peer that breaks the framing loses its own connection only;
//   - Shutdown answers what was accepted and then hangs up, so that a client
//     that reconnects (QEMU's reconnect-delay) resends the rest and its guest
//     sees no error;
//   - with Config.TLS nothing is said of any export before the client has
//     shown the certificate that it asks for.
//
// It does not order overlapping requests in flight, as a disk does not. Without
// Config.TLS it does not encrypt or authenticate: listen on a unix socket whose
// directory only the owner can enter.
//
// The package knows nothing of where the bytes lie. Abilities beyond reading
// are small optional interfaces beside Device.
package nbd
