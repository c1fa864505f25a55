package drs

// LaunchConfiguration says how recovery instances of one server are launched.
// Stored as JSON: a field may be added, none renamed.
type LaunchConfiguration struct {
	Name                string             `json:"name"`
	EC2LaunchTemplateID string             `json:"ec2LaunchTemplateId"`
	Disposition         LaunchDisposition  `json:"disposition"`
	RightSizing         RightSizingMethod  `json:"rightSizing"`
	CopyPrivateIP       bool               `json:"copyPrivateIp"`
	CopyTags            bool               `json:"copyTags"`
	OSByol              bool               `json:"osByol"`
	PostLaunchEnabled   bool               `json:"postLaunchEnabled"`
	LaunchIntoInstance  RecoveryInstanceID `json:"launchIntoInstance,omitempty"`
	RecoveryMode        RecoveryMode       `json:"recoveryMode"`
	// Network is the machine network that the recovery of the server's source
	// network chose; empty: the server's own default.
	Network string `json:"network,omitempty"`
}

type (
	LaunchDisposition string
	RightSizingMethod string
	RecoveryMode      string
)

const (
	// DispositionStarted boots the machine; DispositionStopped only prepares it.
	DispositionStarted LaunchDisposition = "STARTED"
	DispositionStopped LaunchDisposition = "STOPPED"

	RightSizingNone  RightSizingMethod = "NONE"
	RightSizingBasic RightSizingMethod = "BASIC"
	RightSizingInAWS RightSizingMethod = "IN_AWS"

	// RecoveryOptimal makes the disk bootable on the target first; RecoveryFast
	// boots it as it is.
	RecoveryOptimal RecoveryMode = "OPTIMAL"
	RecoveryFast    RecoveryMode = "FAST"
)

// DefaultLaunchConfiguration is what a new source server gets.
func DefaultLaunchConfiguration(server SourceServerID) LaunchConfiguration {
	return LaunchConfiguration{
		Name: "Launch Configuration for Source Server " + string(server),
		// No EC2 here: the template's name is derived, so that tools that demand
		// one find one.
		EC2LaunchTemplateID: "lt-" + string(server)[len("s-"):],
		Disposition:         DispositionStarted,
		RightSizing:         RightSizingBasic,
		RecoveryMode:        RecoveryOptimal,
	}
}
