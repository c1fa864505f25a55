package drsapi

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// recoveryInstanceRequest is the input of the operations that take one instance.
type recoveryInstanceRequest struct {
	RecoveryInstanceID recoveryInstanceID `json:"recoveryInstanceID"`
}

// disconnectRecoveryInstance lets an instance go: it stays listed, and its server
// may be disconnected.
func (c caller) disconnectRecoveryInstance(ctx context.Context, in *recoveryInstanceRequest) (*nothing, error) {
	return nil, c.Recovery.DisconnectInstance(ctx, c.account, drs.RecoveryInstanceID(in.RecoveryInstanceID))
}

// deleteRecoveryInstance takes a disconnected instance off the list; its machine
// runs on.
func (c caller) deleteRecoveryInstance(ctx context.Context, in *recoveryInstanceRequest) (*nothing, error) {
	err := c.Recovery.ReleaseInstance(ctx, c.account, drs.RecoveryInstanceID(in.RecoveryInstanceID))
	var refused *drs.Error
	if errors.As(err, &refused) && refused.Kind == drs.KindNotFound { // the operation has no ResourceNotFoundException
		return nil, drs.Conflict(refused.ResourceType, refused.ResourceID, "%s", refused.Message)
	}
	return nil, err
}

type failbackReplicationConfiguration struct {
	RecoveryInstanceID  recoveryInstanceID `json:"recoveryInstanceID"`
	Name                string             `json:"name"`
	BandwidthThrottling int64              `json:"bandwidthThrottling"`
	UsePrivateIP        bool               `json:"usePrivateIP"`
	InternetProtocol    string             `json:"internetProtocol" enum:"IPV4,IPV6"`
}

type updateFailbackReplicationConfigurationRequest struct {
	RecoveryInstanceID  recoveryInstanceID `json:"recoveryInstanceID"`
	Name                *boundedString     `json:"name,omitempty"`
	BandwidthThrottling *int64             `json:"bandwidthThrottling,omitempty" minimum:"0"`
	UsePrivateIP        *bool              `json:"usePrivateIP,omitempty"`
	InternetProtocol    *string            `json:"internetProtocol,omitempty" enum:"IPV4,IPV6"`
}

func (c caller) getFailbackReplicationConfiguration(ctx context.Context, in *recoveryInstanceRequest) (*failbackReplicationConfiguration, error) {
	instance, err := c.existingInstance(ctx, in.RecoveryInstanceID)
	if err != nil {
		return nil, err
	}
	f := instance.Failback
	return &failbackReplicationConfiguration{
		RecoveryInstanceID: in.RecoveryInstanceID, Name: f.Name, BandwidthThrottling: f.BandwidthThrottlingMbps,
		UsePrivateIP: f.UsePrivateIP, InternetProtocol: f.InternetProtocol,
	}, nil
}

// updateFailbackReplicationConfiguration keeps the settings for the failback to
// come.
func (c caller) updateFailbackReplicationConfiguration(ctx context.Context, in *updateFailbackReplicationConfigurationRequest) (*nothing, error) {
	if in.BandwidthThrottling != nil && *in.BandwidthThrottling > maxThrottlingMbps {
		return nil, drs.Invalid("bandwidthThrottling", "The throttle is in Mbit/s and at most %d; 0 means none.", maxThrottlingMbps)
	}
	id := drs.RecoveryInstanceID(in.RecoveryInstanceID)
	return nil, c.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		found, err := tx.InstancesByID(ctx, c.account, []drs.RecoveryInstanceID{id})
		if err != nil {
			return err
		}
		if len(found) == 0 || found[0].Connection == drs.Released {
			return drs.NotFound(drs.TypeRecoveryInstance, string(id))
		}
		f := found[0].Failback
		setText(&f.Name, in.Name)
		if in.BandwidthThrottling != nil {
			f.BandwidthThrottlingMbps = *in.BandwidthThrottling
		}
		setBool(&f.UsePrivateIP, in.UsePrivateIP)
		setText(&f.InternetProtocol, in.InternetProtocol)
		return tx.SetFailback(ctx, id, f)
	})
}

type reverseReplicationResponse struct {
	ReversedDirectionSourceServerARN arn `json:"reversedDirectionSourceServerArn,omitempty"`
}

// reverseReplication is for instances of servers that came from EC2; there are
// none here.
func (c caller) reverseReplication(ctx context.Context, in *recoveryInstanceRequest) (*reverseReplicationResponse, error) {
	instance, err := c.existingInstance(ctx, in.RecoveryInstanceID)
	if err != nil {
		return nil, err
	}
	return nil, drs.Conflict(drs.TypeRecoveryInstance, string(instance.ID),
		"Replication of recovery instance %s cannot be reversed: its source server is on premises, and reversed replication goes to EC2 only.", instance.ID)
}

type startFailbackLaunchRequest struct {
	RecoveryInstanceIDs []recoveryInstanceID `json:"recoveryInstanceIDs" minItems:"1" maxItems:"200"`
	Tags                drs.Tags             `json:"tags,omitempty"`
}

type startFailbackLaunchResponse struct {
	Job job `json:"job"`
}

// startFailbackLaunch needs instances whose failback is FAILBACK_READY_FOR_LAUNCH.
func (c caller) startFailbackLaunch(ctx context.Context, in *startFailbackLaunchRequest) (*startFailbackLaunchResponse, error) {
	if err := checkTags(in.Tags, drs.MaxTags); err != nil {
		return nil, err
	}
	var first drs.RecoveryInstance
	for n, id := range in.RecoveryInstanceIDs {
		instance, err := c.existingInstance(ctx, id)
		var absent *drs.Error
		switch {
		case errors.As(err, &absent) && absent.Kind == drs.KindNotFound: // the operation has no ResourceNotFoundException
			return nil, drs.Conflict(absent.ResourceType, absent.ResourceID, "%s", absent.Message)
		case err != nil:
			return nil, err
		case n == 0:
			first = instance
		}
	}
	return nil, drs.Conflict(drs.TypeRecoveryInstance, string(first.ID),
		"Failback of recovery instance %s is %s. A failback is launched when it is FAILBACK_READY_FOR_LAUNCH, which takes a failback client that has synchronized.",
		first.ID, failbackState(first))
}

// stopFailback ends a failback that is being synchronized. The model gives it no
// refusal for one that is not: there is nothing to stop then.
func (c caller) stopFailback(ctx context.Context, in *recoveryInstanceRequest) (*nothing, error) {
	_, err := c.existingInstance(ctx, in.RecoveryInstanceID)
	return nil, err
}

// failbackState is where the failback of an instance stands: no client that would
// synchronize one exists yet.
func failbackState(drs.RecoveryInstance) string { return "FAILBACK_NOT_STARTED" }

// existingInstance is for operations that refuse an instance the account lacks.
func (c caller) existingInstance(ctx context.Context, id recoveryInstanceID) (drs.RecoveryInstance, error) {
	instance, err := c.DB.InstanceByID(ctx, drs.RecoveryInstanceID(id))
	if errors.Is(err, db.ErrAbsent) || err == nil && (instance.Account != c.account || instance.Connection == drs.Released) {
		return drs.RecoveryInstance{}, drs.NotFound(drs.TypeRecoveryInstance, string(id))
	}
	return instance, err
}
