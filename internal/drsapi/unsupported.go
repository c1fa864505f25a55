package drsapi

// unsupported are the operations of the DRS API that this server refuses, so
// that the refusal can say that it knows of them. Their paths are their names.
var unsupported = map[string]bool{
	"AssociateSourceNetworkStack":    true,
	"CreateSourceNetwork":            true,
	"DeleteSourceNetwork":            true,
	"DescribeSourceNetworks":         true,
	"ExportSourceNetworkCfnTemplate": true,
	"StartSourceNetworkRecovery":     true,
	"StartSourceNetworkReplication":  true,
	"StopSourceNetworkReplication":   true,
}
