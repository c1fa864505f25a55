package iam

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// canonicalRequest builds the text whose hash is signed: method, path, query,
// the signed headers and the hash of the body, each in the one form that both
// ends can compute.
func canonicalRequest(r *http.Request, signedHeaders []string, presigned bool, payloadHash string) (string, error) {
	rawPath, rawQuery := rawTarget(r)
	query, err := canonicalQuery(rawQuery, presigned)
	if err != nil {
		return "", err
	}
	headers, err := canonicalHeaders(r, signedHeaders)
	if err != nil {
		return "", err
	}
	return strings.Join([]string{
		r.Method, canonicalPath(rawPath), query, headers, strings.Join(signedHeaders, ";"), payloadHash,
	}, "\n"), nil
}

// canonicalPath normalizes the path as it was sent and encodes it once more:
// what is percent-encoded on the wire is so twice in the signature.
func canonicalPath(path string) string {
	var kept []string
	segments := strings.Split(path, "/")
	for _, s := range segments {
		switch s {
		case "", ".":
		case "..":
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, encode(s))
		}
	}
	if len(kept) == 0 {
		return "/"
	}
	clean := "/" + strings.Join(kept, "/")
	if segments[len(segments)-1] == "" {
		clean += "/"
	}
	return clean
}

// canonicalQuery decodes each parameter, encodes it in the strict form and sorts
// by encoded name, then value. A plus sign means a space, as it does to the
// handler that reads the parameter. A presigned URL carries its signature among the
// parameters, of which it cannot be a part.
func canonicalQuery(query string, presigned bool) (string, error) {
	type parameter struct{ name, value string }
	var params []parameter
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(part, "=")
		name, nameErr := url.QueryUnescape(rawName)
		value, valueErr := url.QueryUnescape(rawValue)
		if nameErr != nil || valueErr != nil {
			return "", refuseForm("The query string has a broken percent-encoding: '%s'.", part)
		}
		if presigned && name == "X-Amz-Signature" {
			continue
		}
		params = append(params, parameter{encode(name), encode(value)})
	}
	slices.SortFunc(params, func(a, b parameter) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	pairs := make([]string, len(params))
	for i, p := range params {
		pairs[i] = p.name + "=" + p.value
	}
	return strings.Join(pairs, "&"), nil
}

// canonicalHeaders writes the headers that the client chose to sign; Host must
// be among them, or a request could be replayed against another server.
func canonicalHeaders(r *http.Request, signed []string) (string, error) {
	if !slices.Contains(signed, "host") {
		return "", refuseSignature("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	if !slices.IsSorted(signed) {
		return "", refuseForm("SignedHeaders must be lower case and sorted.")
	}
	var text strings.Builder
	for _, name := range signed {
		text.WriteString(name)
		text.WriteByte(':')
		for i, value := range headerValues(r, name) {
			if i > 0 {
				text.WriteByte(',')
			}
			text.WriteString(strings.Join(strings.FieldsFunc(value, isBlank), " "))
		}
		text.WriteByte('\n')
	}
	return text.String(), nil
}

func isBlank(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' }

// headerValues returns the values of a header, also of those that net/http keeps
// outside the header map.
func headerValues(r *http.Request, name string) []string {
	switch name {
	case "host":
		return []string{r.Host}
	case "content-length":
		if values := r.Header.Values(name); len(values) > 0 {
			return values
		}
		return []string{strconv.FormatInt(r.ContentLength, 10)}
	case "transfer-encoding":
		return r.TransferEncoding
	}
	return r.Header.Values(name)
}

// encode is the URI encoding of the signature: all but letters, digits and -._~
// becomes %XX in capitals.
func encode(s string) string {
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			out.WriteByte(c)
			continue
		}
		out.WriteByte('%')
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}
