package drsapi

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// witness looks at every reply of every test: it must be of the model's shape, and
// a refusal one that the model gives the operation.
type witness struct {
	t     testing.TB
	api   *API
	model *model
	// lenient is for tests that make operations refuse what they never would.
	lenient bool
}

// answered are the operations that have done what they were asked for in some test.
var answered struct {
	mu    sync.Mutex
	names map[string]bool // guarded by mu
}

// always are the exceptions that any operation may answer with, whether or not the
// model lists them: malformed requests and the caller's rights concern all.
var always = []string{"ValidationException", "AccessDeniedException", "ThrottlingException", "UninitializedAccountException", "InternalServerException"}

func (w *witness) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	recorder := httptest.NewRecorder()
	w.api.ServeHTTP(recorder, r)
	w.look(r, recorder)
	for name, values := range recorder.Header() {
		out.Header()[name] = values
	}
	out.WriteHeader(recorder.Code)
	_, _ = out.Write(recorder.Body.Bytes()) // the test sees what came of it
}

func (w *witness) look(r *http.Request, reply *httptest.ResponseRecorder) {
	op, _, err := w.api.match(r)
	if err != nil {
		return
	}
	described, known := w.model.Operations[op.name]
	if !known {
		return
	}
	if reply.Code < 300 {
		answered.mu.Lock()
		answered.names[op.name] = true
		answered.mu.Unlock()
		if reply.Code != described.HTTP.ResponseCode {
			w.t.Errorf("%s: status %d, want %d", op.name, reply.Code, described.HTTP.ResponseCode)
		}
		if reply.Body.Len() == 0 {
			return
		}
		var body any
		if err := json.Unmarshal(reply.Body.Bytes(), &body); err != nil || described.Output == nil {
			w.t.Errorf("%s: a body %q, %v", op.name, reply.Body, err)
			return
		}
		for _, problem := range w.model.check(described.Output.Shape, described.Output.Shape, body) {
			w.t.Errorf("%s: %s", op.name, problem)
		}
		return
	}
	name := reply.Header().Get("X-Amzn-Errortype")
	if w.lenient || len(described.Errors) == 0 || w.model.Shapes[name] == nil || slices.Contains(always, name) {
		return
	}
	if !slices.Contains(described.Errors, modelRef{name}) {
		w.t.Errorf("%s refused with %s, which the model does not give it: %s", op.name, name, reply.Body)
	}
}

// never are the operations that this server always refuses.
var never = []string{"ReverseReplication", "StartFailbackLaunch"}

// All tests together get every operation to do what it is for.
func TestMain(m *testing.M) {
	answered.names = map[string]bool{}
	flag.Parse()
	code := m.Run()
	all := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" && flag.Lookup("test.list").Value.String() == ""
	if code == 0 && all && flag.Lookup("test.skip").Value.String() == "" {
		var missing []string
		for name := range contractNames() {
			if !answered.names[name] && !slices.Contains(never, name) {
				missing = append(missing, name)
			}
		}
		if slices.Sort(missing); len(missing) > 0 {
			fmt.Println("FAIL: no test saw these operations succeed:", strings.Join(missing, ", "))
			code = 1
		}
	}
	os.Exit(code)
}

// contractNames are the operations by what the repository keeps of the model.
func contractNames() map[string]modelOperation {
	m := &model{}
	text, err := os.ReadFile(contractFile)
	if err == nil {
		err = json.Unmarshal(text, m)
	}
	if err != nil {
		panic(err)
	}
	return m.Operations
}
