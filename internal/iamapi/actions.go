package iamapi

import (
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
)

// action is one operation.
type action struct {
	readOnly bool
	// resource is the ARN that policies decide on; nil: the action sees to it itself.
	resource func(*request) string
	run      func(*request) (any, error)
}

// actions are all operations, by service and name.
var actions = map[string]action{
	"iam:CreateUser":      {false, onUser, createUser},
	"iam:GetUser":         {true, onUser, getUser},
	"iam:ListUsers":       {true, onUser, listUsers},
	"iam:DeleteUser":      {false, onUser, deleteUser},
	"iam:CreateAccessKey": {false, onUser, createAccessKey},
	"iam:ListAccessKeys":  {true, onUser, listAccessKeys},
	"iam:UpdateAccessKey": {false, onUser, updateAccessKey},
	"iam:DeleteAccessKey": {false, onUser, deleteAccessKey},

	"iam:CreatePolicy":        {false, onPolicy, createPolicy},
	"iam:GetPolicy":           {true, onPolicy, getPolicy},
	"iam:GetPolicyVersion":    {true, onPolicy, getPolicyVersion},
	"iam:ListPolicyVersions":  {true, onPolicy, listPolicyVersions},
	"iam:CreatePolicyVersion": {false, onPolicy, createPolicyVersion},
	"iam:ListPolicies":        {true, onPolicy, listPolicies},
	"iam:DeletePolicy":        {false, onPolicy, deletePolicy},

	"iam:AttachUserPolicy":         {false, onUser, changeAttachment(iam.User, (*directory.Directory).Attach)},
	"iam:DetachUserPolicy":         {false, onUser, changeAttachment(iam.User, (*directory.Directory).Detach)},
	"iam:ListAttachedUserPolicies": {true, onUser, listAttached(iam.User)},
	"iam:AttachRolePolicy":         {false, onRole, changeAttachment(iam.Role, (*directory.Directory).Attach)},
	"iam:DetachRolePolicy":         {false, onRole, changeAttachment(iam.Role, (*directory.Directory).Detach)},
	"iam:ListAttachedRolePolicies": {true, onRole, listAttached(iam.Role)},

	"iam:CreateRole":             {false, onRole, createRole},
	"iam:GetRole":                {true, onRole, getRole},
	"iam:ListRoles":              {true, onRole, listRoles},
	"iam:UpdateAssumeRolePolicy": {false, onRole, updateTrust},
	"iam:DeleteRole":             {false, onRole, deleteRole},

	"sts:GetCallerIdentity": {true, nil, getCallerIdentity},
	"sts:GetSessionToken":   {true, nil, getSessionToken},
	"sts:AssumeRole":        {true, nil, assumeRole},
}
