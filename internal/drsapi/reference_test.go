package drsapi

import (
	"bytes"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// The page shows every operation and every member that /openapi.json has, and
// needs nothing but itself.
func TestReference(t *testing.T) {
	s := newSite(t)
	r, err := http.NewRequest("GET", s.server.URL+ReferencePath, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := s.do(r)
	if got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") || got.header.Get("Content-Security-Policy") == "" {
		t.Fatalf("%d %v", got.status, got.header)
	}
	for _, op := range s.api.operations {
		at := bytes.Index(got.body, []byte(`<details id="`+op.name+`">`))
		if at < 0 {
			t.Errorf("no %s", op.name)
			continue
		}
		part, _, _ := bytes.Cut(got.body[at:], []byte("</details>"))
		for name := range op.input.Properties {
			if !bytes.Contains(part, []byte(">"+name+"<td>")) {
				t.Errorf("%s: no %s", op.name, name)
			}
		}
	}
	// The rendered page must not load anything.
	if found := regexp.MustCompile(`(?i)<script|<link|<img|@import|url\(|https?://`).FindAll(got.body, -1); found != nil {
		t.Errorf("the page asks for more: %s", found)
	}
	if part := regexp.MustCompile(`(?s)<details id="StartRecovery">.*?</details>`).Find(got.body); !bytes.Contains(part, []byte("aws drs start-recovery")) ||
		!bytes.Contains(part, []byte("1 to 200 items")) {
		t.Errorf("StartRecovery: %s", part)
	}
}
