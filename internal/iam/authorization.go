package iam

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// authorization is what a request says of its signature.
type authorization struct {
	keyID, date, region, service, terminator string // the credential
	signedHeaders                            []string
	signature                                string
	token                                    string    // of a session
	at                                       time.Time // when it was signed
	presigned                                bool
	expires                                  time.Duration // of a presigned URL
}

// maxPresigned is how long a presigned URL may be good for, as on AWS.
const maxPresigned = 7 * 24 * time.Hour

// SignedService is the service that a request claims to be signed for; empty when
// it is not signed or not in the proper form. Nothing is checked.
func SignedService(r *http.Request) string {
	auth, err := parseSignature(r)
	if err != nil {
		return ""
	}
	return auth.service
}

// parseSignature reads the Authorization header or the query of a presigned URL;
// a request that has both is refused.
func parseSignature(r *http.Request) (authorization, error) {
	values := r.Header.Values("Authorization")
	query := r.URL.Query()
	inQuery := query.Has("X-Amz-Signature") || query.Has("X-Amz-Algorithm")
	switch {
	case len(values) == 0 && inQuery:
		return parsePresigned(query)
	case len(values) == 0:
		return authorization{}, refuseAnonymous()
	case len(values) > 1:
		return authorization{}, refuseForm("The request has %d Authorization headers, want one.", len(values))
	case inQuery:
		return authorization{}, refuseForm("The request is signed twice, in its Authorization header and in its query.")
	}
	auth, err := parseHeader(values[0])
	if err != nil {
		return auth, err
	}
	auth.token = r.Header.Get("X-Amz-Security-Token")
	auth.at, err = signingTime(r)
	return auth, err
}

func parseHeader(value string) (auth authorization, err error) {
	algorithm, params, _ := strings.Cut(strings.TrimSpace(value), " ")
	if algorithm != signingAlgorithm {
		return authorization{}, refuseForm("Unsupported AWS 'algorithm': '%s'. Use %s.", algorithm, signingAlgorithm)
	}
	var credential string
	seen := map[string]bool{}
	for part := range strings.SplitSeq(params, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return authorization{}, refuseForm("'%s' not a valid key=value pair (missing equal-sign) in Authorization header.", strings.TrimSpace(part))
		}
		if seen[name] {
			return authorization{}, refuseForm("Authorization header has '%s' twice.", name)
		}
		seen[name] = true
		switch name {
		case "Credential":
			credential = value
		case "SignedHeaders":
			auth.signedHeaders = strings.Split(value, ";")
		case "Signature":
			auth.signature = value
		}
	}
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if !seen[name] {
			return authorization{}, refuseForm("Authorization header requires '%s' parameter.", name)
		}
	}
	return auth, auth.scope(credential)
}

// parsePresigned reads the signature of a presigned URL.
func parsePresigned(query url.Values) (auth authorization, err error) {
	one := func(name string) string {
		if err == nil && len(query[name]) != 1 {
			err = refuseForm("A presigned URL has the parameter '%s' once.", name)
		}
		return query.Get(name)
	}
	algorithm, credential, date := one("X-Amz-Algorithm"), one("X-Amz-Credential"), one("X-Amz-Date")
	expires, headers := one("X-Amz-Expires"), one("X-Amz-SignedHeaders")
	auth.signature, auth.presigned = one("X-Amz-Signature"), true
	if len(query["X-Amz-Security-Token"]) > 0 {
		auth.token = one("X-Amz-Security-Token")
	}
	if err != nil {
		return authorization{}, err
	}
	if algorithm != signingAlgorithm {
		return authorization{}, refuseForm("Unsupported AWS 'algorithm': '%s'. Use %s.", algorithm, signingAlgorithm)
	}
	auth.signedHeaders = strings.Split(headers, ";")
	if auth.at, err = time.Parse(amzDateForm, date); err != nil {
		return authorization{}, refuseForm("X-Amz-Date must be in ISO-8601 'basic format'. Got '%s'.", date)
	}
	seconds, err := strconv.ParseUint(expires, 10, 32)
	if auth.expires = time.Duration(seconds) * time.Second; err != nil || seconds == 0 || auth.expires > maxPresigned {
		return authorization{}, refuseForm("X-Amz-Expires must be 1 to %d seconds.", int(maxPresigned.Seconds()))
	}
	return auth, auth.scope(credential)
}

func (auth *authorization) scope(credential string) error {
	scope := strings.Split(credential, "/")
	if len(scope) != 5 {
		return refuseForm("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	auth.keyID, auth.date, auth.region, auth.service, auth.terminator = scope[0], scope[1], scope[2], scope[3], scope[4]
	return nil
}

// signingTime is the moment that the client claims to have signed at. The value
// goes into the signature, so it cannot be changed on the way.
func signingTime(r *http.Request) (time.Time, error) {
	name, forms := "X-Amz-Date", []string{amzDateForm}
	if r.Header.Get(name) == "" {
		name, forms = "Date", []string{amzDateForm, time.RFC3339, http.TimeFormat}
	}
	values := r.Header.Values(name)
	if len(values) != 1 {
		return time.Time{}, refuseForm("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	for _, form := range forms {
		if at, err := time.Parse(form, values[0]); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, refuseForm("Date must be in ISO-8601 'basic format'. Got '%s'. See http://en.wikipedia.org/wiki/ISO_8601", values[0])
}
