package server

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"lifeboat/internal/db"
)

func TestInstallationRoundTrip(t *testing.T) {
	want := installation{
		Format: installationFormat, Account: "123456789012", Region: "us-east-1", Journal: "72h0m0s", RootKey: "k", RootSecret: []byte{1, 2},
		Files: map[string][]byte{"ca.pem": []byte(strings.Repeat("x", 100_000))},
		Configuration: db.Configuration{Tables: map[string][]db.Row{
			"webhooks": {{"id": {V: "a"}, "secret": {V: []byte{0, 255}}, "created": {V: int64(1) << 60}}},
		}},
	}
	document, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeInstallation(document)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if again, err := want.encode(); err != nil || string(again) != string(document) {
		t.Errorf("the same installation is another document: %v", err)
	}
	for n := range len(document) {
		if _, err := decodeInstallation(document[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes are taken for it", n, len(document))
		}
	}
	for _, newer := range []int{0, installationFormat + 1} {
		other := want
		other.Format = newer
		document, err := other.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeInstallation(document); err == nil {
			t.Errorf("format %d is taken", newer)
		}
	}
}

func FuzzInstallation(f *testing.F) {
	document, err := installation{Format: 1, Files: map[string][]byte{"a": nil}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(document)
	f.Fuzz(func(t *testing.T, document []byte) {
		in, err := decodeInstallation(document)
		if err != nil {
			return
		}
		if _, err := json.Marshal(in); err != nil {
			t.Skip() // raw members of extended servers are checked when servers are made of them
		}
	})
}
