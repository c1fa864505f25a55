package convert

// size is an instance type of the service, by what it has.
type size struct {
	name   string
	cpus   int
	memory int64 // GiB
}

// c5 is the family that the service's basic right-sizing chooses from.
var c5 = []size{
	{"c5.large", 2, 4},
	{"c5.xlarge", 4, 8},
	{"c5.2xlarge", 8, 16},
	{"c5.4xlarge", 16, 32},
	{"c5.9xlarge", 36, 72},
	{"c5.12xlarge", 48, 96},
	{"c5.18xlarge", 72, 144},
	{"c5.24xlarge", 96, 192},
}

// InstanceType names the smallest size that holds a server of cpus cores and
// memory bytes, or the largest there is. It is for display: tools expect it, and
// no machine here is limited to one of these sizes.
func InstanceType(cpus int, memory int64) string {
	for _, s := range c5 {
		if cpus <= s.cpus && memory <= s.memory<<30 {
			return s.name
		}
	}
	return c5[len(c5)-1].name
}
