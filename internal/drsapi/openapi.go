package drsapi

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

const schemaPrefix = "#/components/schemas/"

func newRegistry() huma.Registry {
	return huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer)
}

// openAPI describes the operations from the same shapes that check requests.
func (a *API) openAPI() *huma.OpenAPI {
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title:   "Lifeboat: the AWS Elastic Disaster Recovery API",
			Version: "2020-02-26",
			Description: "The operations of the AWS Elastic Disaster Recovery API that this server supports. " +
				"Sign requests with AWS Signature Version 4 for the service drs.",
		},
		Components: &huma.Components{
			Schemas: a.schemas,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"sigv4": {Type: "apiKey", In: "header", Name: "Authorization", Description: "AWS Signature Version 4, service drs"},
			},
		},
		Security: []map[string][]string{{"sigv4": {}}},
	}
	refusal := a.schemas.Schema(reflect.TypeFor[errorBody](), true, "Error")
	routes := slices.SortedFunc(maps.Keys(a.operations), func(x, y route) int {
		return strings.Compare(x.path+x.method, y.path+y.method)
	})
	for _, at := range routes {
		doc.AddOperation(a.operations[at].describe(refusal))
	}
	return doc
}

func (op *operation) describe(refusal *huma.Schema) *huma.Operation {
	out := &huma.Operation{
		OperationID: op.name, Summary: op.name, Method: op.route.method, Path: op.route.path,
		Responses: map[string]*huma.Response{
			strconv.Itoa(op.status): {Description: "Done"},
			"default":               {Description: "A refusal; its header X-Amzn-Errortype names the exception", Content: jsonContent(refusal)},
		},
	}
	if op.output != nil {
		out.Responses[strconv.Itoa(op.status)].Content = jsonContent(op.output)
	}
	body := &huma.Schema{Type: huma.TypeObject, Properties: maps.Clone(op.input.Properties), AdditionalProperties: true}
	for _, p := range op.places {
		out.Parameters = append(out.Parameters, &huma.Param{
			Name: p.member, In: p.in, Required: true, Schema: op.input.Properties[p.member],
		})
		delete(body.Properties, p.member)
		if p.in == "path" {
			out.Path += "{" + p.member + "}"
		}
	}
	for _, name := range op.input.Required {
		if _, ok := body.Properties[name]; ok {
			body.Required = append(body.Required, name)
		}
	}
	if len(body.Properties) > 0 {
		out.RequestBody = &huma.RequestBody{Content: jsonContent(body), Required: len(body.Required) > 0}
	}
	return out
}

func jsonContent(s *huma.Schema) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: s}}
}
