package s3

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"lifeboat/internal/vault/blob"
)

// Scheme begins every location of this package.
const Scheme = "s3://"

// Location says where the objects lie:
//
//	s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME&path-style=BOOL&profile=NAME&ca-cert=FILE
//
// It never holds a secret, so that it can be kept and shown.
type Location struct {
	Bucket string
	Prefix string // of all keys; empty or ending in a slash
	// Endpoint is the URL of another service than Amazon's, without a path.
	Endpoint string
	Region   string // us-east-1 by default
	// PathStyle puts the bucket into the path instead of the host name. It is the
	// default where an endpoint is named.
	PathStyle bool
	Profile   string // of the AWS credentials file; empty: the default one
	CACert    string // a file of PEM certificates to trust besides the system's
}

const defaultRegion = "us-east-1"

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// ParseLocation reads a location. Its errors say what is wanted instead.
func ParseLocation(text string) (Location, error) {
	l, err := parseLocation(text)
	if err != nil {
		return Location{}, fmt.Errorf("location %s: %w", Redacted(text), err)
	}
	return l, nil
}

var errForm = errors.New("want s3://BUCKET[/PREFIX]?endpoint=https://HOST[:PORT]&region=NAME&path-style=true|false&profile=NAME&ca-cert=FILE, all after the bucket optional")

func parseLocation(text string) (l Location, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme+"://" != Scheme || u.Opaque != "" || u.Fragment != "" {
		return l, errForm
	}
	if u.User != nil {
		return l, errSecret
	}
	l = Location{Bucket: u.Host, Region: defaultRegion}
	if !bucketName.MatchString(l.Bucket) || strings.Contains(l.Bucket, "..") {
		return l, fmt.Errorf("bucket %q: want 3 to 63 lower-case letters, digits, dots and dashes", l.Bucket)
	}
	if prefix := strings.Trim(u.Path, "/"); prefix != "" {
		if err := blob.CheckName(prefix); err != nil || len(prefix) > 400 {
			return l, fmt.Errorf("prefix %q: want at most 400 letters, digits, '-', '_', '.' and slashes, no part beginning with a dot", prefix)
		}
		l.Prefix = prefix + "/"
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return l, errForm
	}
	for name, values := range query {
		if len(values) != 1 || values[0] == "" {
			return l, fmt.Errorf("%s: want it once and not empty", name)
		}
		if err := l.set(name, values[0]); err != nil {
			return l, err
		}
	}
	if !query.Has("path-style") {
		l.PathStyle = l.Endpoint != ""
	}
	return l, nil
}

var errSecret = errors.New("keys do not belong into a location, which is kept and shown: " +
	"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for each start of the server, or write them to ~/.aws/credentials and name their profile with profile=NAME")

func (l *Location) set(name, value string) (err error) {
	switch name {
	case "endpoint":
		l.Endpoint, err = parseEndpoint(value)
	case "region":
		if !regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`).MatchString(value) {
			return fmt.Errorf("region %q: want letters, digits and dashes", value)
		}
		l.Region = value
	case "path-style":
		if l.PathStyle, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("path-style %q: want true or false", value)
		}
	case "profile":
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f || r == ']' }) {
			return fmt.Errorf("profile %q: want a name of a section of the credentials file", value)
		}
		l.Profile = value
	case "ca-cert":
		if !filepath.IsAbs(value) || strings.ContainsRune(value, 0) {
			return fmt.Errorf("ca-cert %q: want an absolute path", value)
		}
		l.CACert = filepath.Clean(value)
	default:
		if lower := strings.ToLower(name); strings.Contains(lower, "key") || strings.Contains(lower, "secret") || strings.Contains(lower, "token") {
			return errSecret
		}
		return fmt.Errorf("%s is not known: %w", name, errForm)
	}
	return err
}

func parseEndpoint(value string) (string, error) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.Opaque != "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("endpoint %q: want http://HOST[:PORT] or https://HOST[:PORT]", value)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", fmt.Errorf("endpoint %q: want a port from 1 to 65535", value)
		}
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}

// String returns the location in its one canonical form.
func (l Location) String() string {
	q := url.Values{}
	for name, value := range map[string]string{"endpoint": l.Endpoint, "profile": l.Profile, "ca-cert": l.CACert} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if l.Region != defaultRegion {
		q.Set("region", l.Region)
	}
	if l.PathStyle != (l.Endpoint != "") {
		q.Set("path-style", strconv.FormatBool(l.PathStyle))
	}
	out := Scheme + l.Bucket
	if l.Prefix != "" {
		out += "/" + strings.TrimSuffix(l.Prefix, "/")
	}
	if len(q) > 0 {
		out += "?" + q.Encode()
	}
	return out
}

// Redacted is a location as it may be shown even when it was given wrongly, with a
// secret in it.
func Redacted(text string) string {
	if before, after, found := strings.Cut(text, "@"); found && !strings.ContainsAny(before, "?") {
		text = Scheme + "***@" + after
	}
	if head, _, found := strings.Cut(text, "?"); found {
		text = head + "?…"
	}
	return strconv.Quote(text)
}
