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
var actions = withPolicies(map[string]action{
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

	"iam:CreateGroup":         {false, onGroup, createGroup},
	"iam:GetGroup":            {true, onGroup, getGroup},
	"iam:ListGroups":          {true, onGroup, listGroups},
	"iam:ListGroupsForUser":   {true, onUser, listGroupsForUser},
	"iam:AddUserToGroup":      {false, onGroup, changeMember(true)},
	"iam:RemoveUserFromGroup": {false, onGroup, changeMember(false)},
	"iam:DeleteGroup":         {false, onGroup, deleteGroup},

	"iam:CreateRole":             {false, onRole, createRole},
	"iam:GetRole":                {true, onRole, getRole},
	"iam:ListRoles":              {true, onRole, listRoles},
	"iam:UpdateAssumeRolePolicy": {false, onRole, updateTrust},
	"iam:UpdateRole":             {false, onRole, updateRole},
	"iam:DeleteRole":             {false, onRole, deleteRole},

	"iam:ListInstanceProfilesForRole": {true, onRole, listInstanceProfiles},

	"sts:GetCallerIdentity": {true, nil, getCallerIdentity},
	"sts:GetSessionToken":   {true, nil, getSessionToken},
	"sts:AssumeRole":        {true, nil, assumeRole},
})

// withPolicies adds what users, roles and groups have alike.
func withPolicies(actions map[string]action) map[string]action {
	for kind, word := range map[iam.Kind]string{iam.User: "User", iam.Role: "Role", directory.GroupKind: "Group"} {
		on := map[iam.Kind]func(*request) string{iam.User: onUser, iam.Role: onRole, directory.GroupKind: onGroup}[kind]
		actions["iam:Attach"+word+"Policy"] = action{false, on, changeAttachment(kind, (*directory.Directory).Attach)}
		actions["iam:Detach"+word+"Policy"] = action{false, on, changeAttachment(kind, (*directory.Directory).Detach)}
		actions["iam:ListAttached"+word+"Policies"] = action{true, on, listAttached(kind)}
		actions["iam:Put"+word+"Policy"] = action{false, on, putInline(kind)}
		actions["iam:Get"+word+"Policy"] = action{true, on, getInline(kind)}
		actions["iam:List"+word+"Policies"] = action{true, on, listInline(kind)}
		actions["iam:Delete"+word+"Policy"] = action{false, on, deleteInline(kind)}
	}
	return actions
}
