// Package drsapi speaks the wire protocol of the AWS Elastic Disaster Recovery
// API (restJson1): the AWS CLI and SDKs work against it unchanged.
//
// A request is authenticated, matched to an operation, held against the
// constraints of the operation's shapes and handed to a handler of the form
//
//	func (c caller) describeJobs(ctx context.Context, in *describeJobsRequest) (*describeJobsResponse, error)
//
// Shapes are structs whose tags and types carry the constraints; the same
// declarations check requests and make the OpenAPI document. Each resource has
// one file with its shapes, their conversion from package drs, and its handlers.
// No rule of the domain is here: what a request may do is decided by whom it is
// handed to, and refused with *drs.Error, which errors.go maps to the exceptions
// of the API.
//
// Where behaviour differs from the service, docs/drs-compatibility.md says so.
package drsapi
