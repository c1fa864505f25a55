package iamapi

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
)

type policyShape struct {
	PolicyName       string
	PolicyID         string `xml:"PolicyId"`
	ARN              string `xml:"Arn"`
	Path             string
	DefaultVersionID string `xml:"DefaultVersionId"`
	AttachmentCount  int
	IsAttachable     bool
	Description      string `xml:",omitempty"`
	CreateDate       string
	UpdateDate       string
}

type versionShape struct {
	Document         string `xml:",omitempty"` // URL-encoded, as the service sends it
	VersionID        string `xml:"VersionId"`
	IsDefaultVersion bool
	CreateDate       string
}

func policyShapeOf(p directory.Policy) policyShape {
	return policyShape{p.Name, p.ID, p.ARN, "/", versionOf(p), p.Attached, true, p.Description, stampOf(p.Created), stampOf(p.Updated)}
}

// versionOf names the one version that a policy has: earlier ones are not kept.
func versionOf(p directory.Policy) string { return "v" + strconv.Itoa(p.Version) }

func versionShapeOf(p directory.Policy, document bool) versionShape {
	v := versionShape{VersionID: versionOf(p), IsDefaultVersion: true, CreateDate: stampOf(p.Updated)}
	if document {
		v.Document = escaped(p.Text)
	}
	return v
}

// escaped is a document as the service sends it.
func escaped(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

func onPolicy(q *request) string {
	if arn := q.form.Get("PolicyArn"); arn != "" {
		return arn
	}
	return "arn:aws:iam::" + q.account + ":policy/" + q.form.Get("PolicyName")
}

type policyResult struct{ Policy policyShape }

func createPolicy(q *request) (any, error) {
	name, err := q.need("PolicyName")
	if err != nil {
		return nil, err
	}
	text, err := q.need("PolicyDocument")
	if err != nil {
		return nil, err
	}
	p, err := q.Directory.CreatePolicy(q.ctx(), q.account, q.form.Get("Path"), name, q.form.Get("Description"), text)
	return policyResult{policyShapeOf(p)}, err
}

func (q *request) policy() (directory.Policy, error) {
	arn, err := q.need("PolicyArn")
	if err != nil {
		return directory.Policy{}, err
	}
	return q.Directory.Policy(q.ctx(), q.account, arn)
}

func getPolicy(q *request) (any, error) {
	p, err := q.policy()
	return policyResult{policyShapeOf(p)}, err
}

type versionResult struct{ PolicyVersion versionShape }

func getPolicyVersion(q *request) (any, error) {
	p, err := q.policy()
	if err != nil {
		return nil, err
	}
	if version, err := q.need("VersionId"); err != nil {
		return nil, err
	} else if version != versionOf(p) {
		return nil, &directory.Error{Code: directory.CodeAbsent, Message: "Policy " + p.ARN + " version " + version + " does not exist: this server keeps the latest only, " + versionOf(p) + "."}
	}
	return versionResult{versionShapeOf(p, true)}, nil
}

func listPolicyVersions(q *request) (any, error) {
	p, err := q.policy()
	return struct {
		Versions []versionShape `xml:"Versions>member"`
		Page
	}{Versions: []versionShape{versionShapeOf(p, false)}}, err
}

// createPolicyVersion replaces the document: a version that is not the default
// would have no effect, and is refused.
func createPolicyVersion(q *request) (any, error) {
	arn, err := q.need("PolicyArn")
	if err != nil {
		return nil, err
	}
	text, err := q.need("PolicyDocument")
	if err != nil {
		return nil, err
	}
	if q.form.Get("SetAsDefault") != "true" {
		return nil, &directory.Error{Code: directory.CodeInvalid, Message: "This server keeps one version of a policy: give SetAsDefault=true, and it replaces the present one."}
	}
	p, err := q.Directory.ReplacePolicy(q.ctx(), q.account, arn, text)
	return versionResult{versionShapeOf(p, false)}, err
}

func listPolicies(q *request) (any, error) {
	own, builtIn, err := q.Directory.Policies(q.ctx(), q.account)
	if err != nil {
		return nil, err
	}
	var all []directory.Policy
	switch scope := q.form.Get("Scope"); scope {
	case "", "All":
		all = append(own, builtIn...)
	case "Local":
		all = own
	case "AWS":
		all = builtIn
	default:
		return nil, &directory.Error{Code: directory.CodeInvalid, Message: "Scope must be All, AWS or Local."}
	}
	// The marker needs one order over both; ARNs have it, built-in ones last.
	policies, page, err := paged(q, all, func(p directory.Policy) string { return p.ARN })
	out := struct {
		Policies []policyShape `xml:"Policies>member"`
		Page
	}{Page: page}
	for _, p := range policies {
		out.Policies = append(out.Policies, policyShapeOf(p))
	}
	return out, err
}

func deletePolicy(q *request) (any, error) {
	arn, err := q.need("PolicyArn")
	if err != nil {
		return nil, err
	}
	return nil, q.Directory.DeletePolicy(q.ctx(), q.account, arn)
}

type attachment func(d *directory.Directory, ctx context.Context, account string, h directory.Holder, arn string) error

func changeAttachment(kind iam.Kind, change attachment) func(*request) (any, error) {
	return func(q *request) (any, error) {
		h, err := q.holder(kind)
		if err != nil {
			return nil, err
		}
		arn, err := q.need("PolicyArn")
		if err != nil {
			return nil, err
		}
		return nil, change(q.Directory, q.ctx(), q.account, h, arn)
	}
}

func listAttached(kind iam.Kind) func(*request) (any, error) {
	type member struct {
		PolicyName string
		PolicyARN  string `xml:"PolicyArn"`
	}
	type result struct {
		Policies []member `xml:"AttachedPolicies>member"`
		Page
	}
	return func(q *request) (any, error) {
		h, err := q.holder(kind)
		if err != nil {
			return nil, err
		}
		g, err := q.Directory.Granted(q.ctx(), q.account, h)
		if err != nil {
			return nil, err
		}
		arns, page, err := paged(q, slices.Sorted(slices.Values(g.Attached)), func(arn string) string { return arn })
		out := result{Page: page}
		for _, arn := range arns {
			out.Policies = append(out.Policies, member{arn[strings.LastIndexByte(arn, '/')+1:], arn})
		}
		return out, err
	}
}
