package iam

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
)

// suite holds the cases of AWS's SigV4 test suite (aws-c-auth,
// tests/aws-signing-test-suite/v4) but for those of session tokens and of S3's
// paths that are not normalized. Credentials, time, region and service are the
// same in all of them.
var suite = []struct {
	name, method, target string
	headers              []string
	body                 string
	signed, signature    string
}{
	{"get-header-key-duplicate", "GET", "/", []string{"My-Header1: value2", "My-Header1: value2", "My-Header1: value1"}, "",
		"host;my-header1;x-amz-date", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
	{"get-header-value-multiline", "GET", "/", []string{"My-Header1: value1\n  value2\n     value3"}, "",
		"host;my-header1;x-amz-date", "cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd"},
	{"get-header-value-order", "GET", "/", []string{"My-Header1: value4", "My-Header1: value1", "My-Header1: value3", "My-Header1: value2"}, "",
		"host;my-header1;x-amz-date", "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
	{"get-header-value-trim", "GET", "/", []string{"My-Header1: value1", "My-Header2: \"a   b   c\""}, "",
		"host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
	{"get-relative-normalized", "GET", "/example/..", nil, "",
		"host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-relative-relative-normalized", "GET", "/example1/example2/../..", nil, "",
		"host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-slash-dot-slash-normalized", "GET", "/./", nil, "",
		"host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-slash-normalized", "GET", "//", nil, "",
		"host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-slash-pointless-dot-normalized", "GET", "/./example", nil, "",
		"host;x-amz-date", "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"},
	{"get-slashes-normalized", "GET", "//example//", nil, "",
		"host;x-amz-date", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"},
	{"get-space-normalized", "GET", "/example space/", nil, "",
		"host;x-amz-date", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
	{"get-space-unnormalized", "GET", "/example space/", nil, "",
		"host;x-amz-date", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
	{"get-unreserved", "GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", nil, "",
		"host;x-amz-date", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
	{"get-utf8", "GET", "/ሴ", nil, "",
		"host;x-amz-date", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
	{"get-vanilla-empty-query-key", "GET", "/?Param1=value1", nil, "",
		"host;x-amz-date", "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
	{"get-vanilla-query-order-encoded", "GET", "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1", nil, "",
		"host;x-amz-date", "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"},
	{"get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1", nil, "",
		"host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
	{"get-vanilla-query-unreserved", "GET", "/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", nil, "",
		"host;x-amz-date", "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
	{"get-vanilla-query", "GET", "/", nil, "",
		"host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-vanilla-utf8-query", "GET", "/?ሴ=bar", nil, "",
		"host;x-amz-date", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
	{"get-vanilla", "GET", "/", nil, "",
		"host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"post-header-key-case", "POST", "/", nil, "",
		"host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
	{"post-header-key-sort", "POST", "/", []string{"My-Header1: value1"}, "",
		"host;my-header1;x-amz-date", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
	{"post-header-value-case", "POST", "/", []string{"My-Header1: VALUE1"}, "",
		"host;my-header1;x-amz-date", "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
	{"post-vanilla-empty-query-value", "POST", "/?Param1=value1", nil, "",
		"host;x-amz-date", "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
	{"post-vanilla-query", "POST", "/?Param1=value1", nil, "",
		"host;x-amz-date", "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
	{"post-vanilla", "POST", "/", nil, "",
		"host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
	{"post-x-www-form-urlencoded-parameters", "POST", "/", []string{"Content-Type: application/x-www-form-urlencoded; charset=utf-8", "Content-Length: 13", "x-amz-content-sha256: 9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"}, "Param1=value1",
		"content-length;content-type;host;x-amz-content-sha256;x-amz-date", "328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422"},
	{"post-x-www-form-urlencoded", "POST", "/", []string{"Content-Type: application/x-www-form-urlencoded", "Content-Length: 13", "x-amz-content-sha256: 9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"}, "Param1=value1",
		"content-length;content-type;host;x-amz-content-sha256;x-amz-date", "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b"},
}

func suiteRequest(t *testing.T, method, target, body string, headers []string, signed, signature string) *http.Request {
	t.Helper()
	path, query, _ := strings.Cut(target, "?")
	r := &http.Request{
		Method: method, RequestURI: target, URL: &url.URL{Path: path, RawQuery: query},
		Host: "example.amazonaws.com", ContentLength: int64(len(body)), Header: http.Header{},
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ":")
		r.Header.Add(name, value)
	}
	r.Header.Set("X-Amz-Date", "20150830T123600Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "+
		"SignedHeaders="+signed+", Signature="+signature)
	return r
}

func suiteVerifier() *Verifier {
	return &Verifier{
		Service: "service", Region: "us-east-1",
		Now: func() time.Time { return time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC) },
		Keys: NewKeyring(AccessKey{
			ID: "AKIDEXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
			Principal: RootOf(drs.Account{ID: "111122223333", Region: "us-east-1"}),
		}),
	}
}

func TestSuite(t *testing.T) {
	for _, c := range suite {
		t.Run(c.name, func(t *testing.T) {
			r := suiteRequest(t, c.method, c.target, c.body, c.headers, c.signed, c.signature)
			key, err := suiteVerifier().Verify(t.Context(), r, []byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if key.Account.ID != "111122223333" {
				t.Errorf("account %q", key.Account.ID)
			}
			// The same signature must not fit another body.
			if _, err := suiteVerifier().Verify(t.Context(), r, []byte(c.body+"x")); err == nil {
				t.Error("a changed body passed")
			}
		})
	}
}
