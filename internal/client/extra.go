package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	drsapi "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// maxReply bounds the answers that are read twice.
const maxReply = 64 << 20

// keepReply gives the caller the answer as it came, beside the SDK's shapes: the
// SDK drops the members that Lifeboat adds.
func keepReply(into *[]byte) func(*drsapi.Options) {
	keep := middleware.DeserializeMiddlewareFunc("KeepReply", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, meta, err := next.HandleDeserialize(ctx, in)
		reply, ok := out.RawResponse.(*smithyhttp.Response)
		if err != nil || !ok {
			return out, meta, err
		}
		body, err := io.ReadAll(io.LimitReader(reply.Body, maxReply))
		if err != nil {
			return out, meta, fmt.Errorf("read answer: %w", err)
		}
		*into, reply.Body = body, struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(body), reply.Body}
		return out, meta, nil
	})
	return drsapi.WithAPIOptions(func(s *middleware.Stack) error {
		return s.Deserialize.Add(keep, middleware.After) // nearest to the wire
	})
}

// withFilter adds a filter that the SDK has no member for.
func withFilter(name string, value any) func(*drsapi.Options) {
	add := middleware.SerializeMiddlewareFunc("WithFilter", func(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (middleware.SerializeOutput, middleware.Metadata, error) {
		request, ok := in.Request.(*smithyhttp.Request)
		if !ok {
			return next.HandleSerialize(ctx, in)
		}
		fail := func(err error) (middleware.SerializeOutput, middleware.Metadata, error) {
			return middleware.SerializeOutput{}, middleware.Metadata{}, fmt.Errorf("add filter %s: %w", name, err)
		}
		body := map[string]any{}
		if err := json.NewDecoder(request.GetStream()).Decode(&body); err != nil {
			return fail(err)
		}
		filters, _ := body["filters"].(map[string]any)
		if filters == nil {
			filters = map[string]any{}
		}
		filters[name] = value
		body["filters"] = filters
		text, err := json.Marshal(body)
		if err != nil {
			return fail(err)
		}
		if request, err = request.SetStream(bytes.NewReader(text)); err != nil {
			return fail(err)
		}
		in.Request = request
		return next.HandleSerialize(ctx, in)
	})
	return drsapi.WithAPIOptions(func(s *middleware.Stack) error {
		return s.Serialize.Add(add, middleware.After)
	})
}

// extras decodes the members of a list's items that the SDK has no place for.
// An answer of another server has none, which is no error.
func extras[T any](reply []byte) []T {
	var page struct {
		Items []T `json:"items"`
	}
	if json.Unmarshal(reply, &page) != nil {
		return nil
	}
	return page.Items
}
