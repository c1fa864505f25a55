package show

import (
	"fmt"

	"lifeboat/internal/client"
)

// Instances shows the machines that were launched.
func (p *Printer) Instances(instances []client.Instance) {
	if len(instances) == 0 {
		p.printf("No recovery instances. `lifeboat recover SERVER --drill` launches one.\n")
		return
	}
	p.instances(instances)
}

func (p *Printer) instances(instances []client.Instance) {
	rows := make([][]string, 0, len(instances))
	for _, i := range instances {
		kind := "recovery"
		if i.Drill {
			kind = "drill"
		}
		if i.Protected {
			kind += ", protected"
		}
		rows = append(rows, []string{
			i.Hostname, lower(i.State), kind, p.moment(i.PointTaken), p.ago(i.Launched), size(i), i.ID,
		})
	}
	p.table([]string{"HOSTNAME", "STATE", "KIND", "DATA AS OF (" + p.zone() + ")", "LAUNCHED", "SIZE", "ID"}, rows)
}

func size(i client.Instance) string {
	if i.CPUs == 0 && i.RAMBytes == 0 {
		return ""
	}
	return fmt.Sprintf("%s, %s", count(int(i.CPUs), "CPU"), Bytes(i.RAMBytes))
}
