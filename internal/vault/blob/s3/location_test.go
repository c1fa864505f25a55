package s3_test

import (
	"strings"
	"testing"

	"lifeboat/internal/vault/blob/s3"
)

func TestParseLocation(t *testing.T) {
	for text, want := range map[string]s3.Location{
		"s3://my-bucket":           {Bucket: "my-bucket", Region: "us-east-1"},
		"s3://my-bucket/":          {Bucket: "my-bucket", Region: "us-east-1"},
		"s3://b.b/a/b?region=eu-1": {Bucket: "b.b", Prefix: "a/b/", Region: "eu-1"},
		"s3://bbb?endpoint=https://HOST:9000/&ca-cert=/etc/ca.pem&profile=my one": {
			Bucket: "bbb", Region: "us-east-1", Endpoint: "https://host:9000", PathStyle: true, CACert: "/etc/ca.pem", Profile: "my one",
		},
		"s3://bbb?endpoint=http://[::1]:80&path-style=false": {Bucket: "bbb", Region: "us-east-1", Endpoint: "http://[::1]:80"},
	} {
		got, err := s3.ParseLocation(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
		again, err := s3.ParseLocation(got.String())
		if err != nil || again != got {
			t.Errorf("%s: %s reads as %+v, %v", text, got, again, err)
		}
	}
}

func TestBadLocations(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "want s3://",
		"file:/x":                            "want s3://",
		"s3:bucket":                          "want s3://",
		"s3://":                              "bucket",
		"s3://UPPER":                         "lower-case",
		"s3://a..b":                          "bucket",
		"s3://bbb/.hidden":                   "prefix",
		"s3://bbb/a b":                       "prefix",
		"s3://bbb?endpoint=host":             "http://HOST",
		"s3://bbb?endpoint=http://h/path":    "http://HOST",
		"s3://bbb?endpoint=http://h:99999":   "endpoint",
		"s3://bbb?path-style=maybe":          "true or false",
		"s3://bbb?ca-cert=ca.pem":            "absolute",
		"s3://bbb?region=":                   "region",
		"s3://bbb?region=a&region=b":         "once",
		"s3://bbb?colour=red":                "not known",
		"s3://AKIA:hush@bbb":                 "~/.aws/credentials",
		"s3://bbb?secret-access-key=hush":    "~/.aws/credentials",
		"s3://bbb?X-Amz-Security-Token=hush": "~/.aws/credentials",
	} {
		_, err := s3.ParseLocation(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the message shows the secret: %v", text, err)
		}
	}
}

// FuzzParseLocation: what is accepted has one canonical form, which reads as the same,
// and nothing in an error is longer than what was given asks for.
func FuzzParseLocation(f *testing.F) {
	for _, text := range []string{
		"s3://bucket/prefix?endpoint=https://h:1&region=r&path-style=true&profile=p&ca-cert=/x", "s3://b?%zz", "s3://a:b@ccc", "s3://bbb?profile=%00",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := s3.ParseLocation(text)
		if err != nil {
			return
		}
		again, err := s3.ParseLocation(l.String())
		if err != nil || again != l {
			t.Fatalf("%q is %+v, its form %q reads as %+v, %v", text, l, l.String(), again, err)
		}
	})
}
