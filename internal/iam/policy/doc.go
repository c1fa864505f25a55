// Package policy reads and evaluates IAM JSON policies, the language in which AWS
// says who may do what. It is pure: no I/O, no clock, no state.
//
// Parse refuses whatever it does not understand, and names the place: a policy
// that is half understood would permit or forbid something else than it says.
// Evaluate follows the published logic: an explicit deny wins, then an allow,
// and what no statement allows is denied.
//
// Left out are the elements that need other AWS services: permissions boundaries,
// service control policies and resource policies other than a role's trust
// policy.
package policy
