package drs

import (
	"fmt"
	"strings"
)

// Account is who owns resources: nothing crosses an account or a region.
type Account struct {
	ID     string // 12 digits
	Region string // as in us-east-1
}

// ResourceType is the word that names a kind of resource in ARNs and errors.
type ResourceType string

const (
	TypeSourceServer     ResourceType = "source-server"
	TypeJob              ResourceType = "job"
	TypeRecoveryInstance ResourceType = "recovery-instance"
	TypeRecoverySnapshot ResourceType = "recovery-snapshot" // has no ARN
	TypeRecoveryPlan     ResourceType = "recovery-plan"
	TypePlanExecution    ResourceType = "recovery-plan-execution"
	TypeSourceNetwork    ResourceType = "source-network"

	TypeReplicationTemplate ResourceType = "replication-configuration-template"
	TypeLaunchTemplate      ResourceType = "launch-configuration-template"
	TypeLaunchAction        ResourceType = "launch-action" // has no ARN
)

// ARN names one resource of one account across all accounts.
func (a Account) ARN(t ResourceType, id string) string {
	return fmt.Sprintf("arn:aws:drs:%s:%s:%s/%s", a.Region, a.ID, t, id)
}

// Resource is what an ARN names.
type Resource struct {
	Account Account
	Type    ResourceType
	ID      string
}

// ParseARN reads a DRS ARN; it does not look whether the resource exists.
func ParseARN(arn string) (Resource, error) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "drs" {
		return Resource{}, fmt.Errorf("%q is not the ARN of a DRS resource: want arn:aws:drs:REGION:ACCOUNT:TYPE/ID", arn)
	}
	kind, id, ok := strings.Cut(parts[5], "/")
	if !ok || kind == "" || id == "" {
		return Resource{}, fmt.Errorf("%q names no resource: want arn:aws:drs:REGION:ACCOUNT:TYPE/ID", arn)
	}
	return Resource{Account: Account{ID: parts[4], Region: parts[3]}, Type: ResourceType(kind), ID: id}, nil
}

// Tags are the key-value pairs of a resource.
type Tags map[string]string

// MaxTags is how many tags one resource may carry.
const MaxTags = 50
