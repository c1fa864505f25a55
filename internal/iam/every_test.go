package iam_test

import (
	"context"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/policy"
)

type onePolicy string

func (p onePolicy) PoliciesOf(context.Context, iam.Principal) ([]iam.NamedPolicy, error) {
	document, err := policy.Parse(string(p))
	return []iam.NamedPolicy{{ARN: "arn:aws:iam::111122223333:policy/p", Document: document}}, err
}

// What reaches all resources of a kind is refused when a single one is denied:
// asking for all is no way around.
func TestEvery(t *testing.T) {
	const allow = `{"Effect":"Allow","Action":"lifeboat:*","Resource":"*"}`
	known := policy.Context{}
	known.Set("aws:SecureTransport", "true")
	ann := iam.Principal{Kind: iam.User, Account: drs.Account{ID: "111122223333", Region: "eu-west-1"}, Name: "ann", ID: "AIDA1"}
	ask := iam.Ask{Action: "lifeboat:ExportDisk", Resource: ann.Account.ARN(drs.TypeSourceServer, "*"), Context: known}
	for statements, may := range map[string]bool{
		allow: true,
		`{"Effect":"Allow","Action":"lifeboat:*","Resource":"arn:aws:drs:*:*:source-server/s-1"}`:                                                                    false,
		`{"Effect":"Allow","Action":"lifeboat:*","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/env":"dev"}}}`:                                         false,
		allow + `,{"Effect":"Deny","Action":"lifeboat:ExportDisk","Resource":"arn:aws:drs:*:*:source-server/s-1"}`:                                                   false,
		allow + `,{"Effect":"Deny","Action":"*","NotResource":"arn:aws:drs:*:*:source-server/s-1"}`:                                                                  false,
		allow + `,{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/secret":"yes"}}}`:                                       false,
		allow + `,{"Effect":"Deny","Action":"*","Resource":"arn:aws:drs:*"}`:                                                                                         false,
		allow + `,{"Effect":"Deny","Action":"*","Resource":"arn:aws:drs:*:*:recovery-instance/*"}`:                                                                   true,
		allow + `,{"Effect":"Deny","NotAction":"lifeboat:ExportDisk","Resource":"*"}`:                                                                                true,
		allow + `,{"Effect":"Deny","Action":"*","Resource":"arn:aws:drs:*:*:source-server/s-1","Condition":{"Bool":{"aws:SecureTransport":"false"}}}`:                true,
		allow + `,{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"true"},"StringNotEquals":{"aws:ResourceTag/env":"dev"}}}`: false,
	} {
		guard := iam.Guard{Policies: onePolicy(`{"Version":"2012-10-17","Statement":[` + statements + `]}`)}
		if err := guard.AuthorizeEvery(t.Context(), ann, ask); (err == nil) != may {
			t.Errorf("%s: %v", statements, err)
		}
	}
}
