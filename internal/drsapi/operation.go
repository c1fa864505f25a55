package drsapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"lifeboat/internal/drs"
)

// route is how a request names an operation. A path that ends in "/" takes one
// parameter after it.
type route struct{ method, path string }

// operation is one operation of the API.
type operation struct {
	name   string
	route  route
	status int
	// beforeInitialize operations work in an account that is not initialized.
	beforeInitialize bool
	access           access

	schemas huma.Registry // what input and output refer to
	input   *huma.Schema
	output  *huma.Schema // nil: the reply has no body
	places  []place      // members that are not in the body
	run     func(c caller, ctx context.Context, input map[string]any) (any, error)
}

// place says where a member of the input comes from, if not from the body.
type place struct {
	member string
	in     string // "path" or "query"
	list   bool
	number bool
}

// nothing is the output of operations whose reply has no body, and the input of
// those that take none.
type nothing struct{}

const tagsPath = "/tags/"

// register lists the operations: all of the API.
func (a *API) register() {
	add(a, operation{name: "InitializeService", status: http.StatusNoContent, beforeInitialize: true, access: onAnything()}, caller.initializeService)

	add(a, operation{name: "DescribeSourceServers", access: onAnything()}, caller.describeSourceServers)
	add(a, operation{name: "DescribeRecoverySnapshots", access: on(drs.TypeSourceServer, "sourceServerID")}, caller.describeRecoverySnapshots)
	add(a, operation{name: "GetReplicationConfiguration", access: on(drs.TypeSourceServer, "sourceServerID")}, caller.getReplicationConfiguration)
	add(a, operation{name: "GetLaunchConfiguration", access: on(drs.TypeSourceServer, "sourceServerID")}, caller.getLaunchConfiguration)
	add(a, operation{name: "UpdateLaunchConfiguration", access: on(drs.TypeSourceServer, "sourceServerID")}, caller.updateLaunchConfiguration)

	add(a, operation{name: "StartRecovery", status: http.StatusAccepted, access: on(drs.TypeSourceServer, "sourceServers.sourceServerID").creating(drs.TypeJob)}, caller.startRecovery)
	add(a, operation{name: "DescribeJobs", access: onAnything()}, caller.describeJobs)
	add(a, operation{name: "DescribeJobLogItems", access: on(drs.TypeJob, "jobID")}, caller.describeJobLogItems)

	add(a, operation{name: "DescribeRecoveryInstances", access: onAnything()}, caller.describeRecoveryInstances)
	add(a, operation{name: "TerminateRecoveryInstances", access: on(drs.TypeRecoveryInstance, "recoveryInstanceIDs")}, caller.terminateRecoveryInstances)

	a.registerConfigurations()
	a.registerProtection()

	add(a, operation{name: "TagResource", route: route{"POST", tagsPath}, beforeInitialize: true, access: onARN("resourceArn")}, caller.tagResource)
	add(a, operation{name: "UntagResource", route: route{"DELETE", tagsPath}, beforeInitialize: true, access: onARN("resourceArn")}, caller.untagResource)
	add(a, operation{name: "ListTagsForResource", route: route{"GET", tagsPath}, beforeInitialize: true, access: onARN("resourceArn")}, caller.listTagsForResource)

	a.registerPlans()
	a.registerNetworks()
}

// add registers one operation: POST /Name and status 200 unless it says other.
func add[I, O any](a *API, op operation, handler func(caller, context.Context, *I) (*O, error)) {
	if op.route == (route{}) {
		op.route = route{http.MethodPost, "/" + op.name}
	}
	if op.status == 0 {
		op.status = http.StatusOK
	}
	op.schemas = a.schemas
	input := reflect.TypeFor[I]()
	op.input = a.schemas.Schema(input, false, op.name+"Request")
	boundTags(a.schemas, op.input)
	if output := reflect.TypeFor[O](); output != reflect.TypeFor[nothing]() {
		op.output = a.schemas.Schema(output, true, op.name+"Response")
	}
	for i := range input.NumField() {
		field := input.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if in := field.Tag.Get("in"); in != "" {
			kind := field.Type.Kind()
			op.places = append(op.places, place{member: name, in: in, list: kind == reflect.Slice, number: kind == reflect.Int32})
		}
	}
	op.run = func(c caller, ctx context.Context, checked map[string]any) (any, error) {
		data, err := json.Marshal(checked)
		if err != nil {
			return nil, fmt.Errorf("encode checked input of %s: %w", op.name, err)
		}
		in := new(I)
		if err := json.Unmarshal(data, in); err != nil {
			return nil, fmt.Errorf("decode checked input of %s: %w", op.name, err)
		}
		return handler(c, ctx, in)
	}
	a.operations[op.route] = &op
}

// match finds the operation of a request and the parameter in its path.
func (a *API) match(r *http.Request) (*operation, string, error) {
	path := r.URL.EscapedPath()
	at, param := route{r.Method, path}, ""
	if rest, ok := strings.CutPrefix(path, tagsPath); ok && rest != "" {
		// Clients escape the slash in an ARN; one that does not means the same.
		unescaped, err := url.PathUnescape(rest)
		if err != nil {
			return nil, "", cannotParse("The path is not properly percent-encoded.")
		}
		at, param = route{r.Method, tagsPath}, unescaped
	}
	if op, ok := a.operations[at]; ok && (param != "") == strings.HasSuffix(at.path, "/") {
		return op, param, nil
	}
	return nil, "", &protocolError{"UnknownOperationException", http.StatusNotFound,
		"The request names no operation of this service. GET /openapi.json lists them."}
}

// read puts the input together from body, path and query, and holds it against its
// shape.
func (op *operation) read(r *http.Request, body []byte, param string) (map[string]any, error) {
	members, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, cannotParse("The query string is not properly encoded.")
	}
	for _, p := range op.places {
		delete(members, p.member)
		switch values := query[p.member]; {
		case p.in == "path":
			members[p.member] = param
		case len(values) == 0:
		case p.list:
			list := make([]any, len(values))
			for i, v := range values {
				list[i] = v
			}
			members[p.member] = list
		case p.number:
			members[p.member] = json.Number(values[0])
		default:
			members[p.member] = values[0]
		}
	}
	c := checker{schemas: op.schemas}
	input, _ := c.value(op.input, "", members).(map[string]any)
	if len(c.problems) > 0 {
		return nil, invalidFields(c.problems)
	}
	return input, nil
}
