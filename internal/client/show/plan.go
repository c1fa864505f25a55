package show

import (
	"fmt"
	"strings"

	"lifeboat/internal/client"
)

// Plan shows what a recovery will do.
func (p *Printer) Plan(plan client.Plan) {
	what := "Recovery of"
	if plan.Drill {
		what = "Drill of"
	}
	p.printf("%s %s:\n\n", what, count(len(plan.Servers), "server"))
	rows := make([][]string, 0, len(plan.Servers))
	for _, s := range plan.Servers {
		from, age := "a point of now, else the newest kept", ""
		if s.Point != nil {
			from = fmt.Sprintf("%s of %s", s.Point.ID, p.moment(&s.Point.Taken))
			if s.Point.Fuzzy() {
				from += ", fuzzy: may not boot"
			}
			age = Duration(p.Now.Sub(s.Point.Taken))
		}
		var removes []string
		for _, i := range s.Removes {
			removes = append(removes, instanceWords(i))
		}
		rows = append(rows, []string{s.Hostname, from, age, strings.Join(removes, ", "), s.Server})
	}
	p.table([]string{"SERVER", "STARTS FROM (" + p.zone() + ")", "AGE", "REMOVES", "ID"}, rows)
	if gone := plan.Removes(); len(gone) > 0 {
		p.printf("\n%s of earlier launches will be removed, with all that was written there since.\n", capital(count(len(gone), "instance")))
	}
}

// Termination shows what a termination will do.
func (p *Printer) Termination(instances []client.Instance) {
	p.printf("Termination of %s, with all that was written there since the launch:\n\n", count(len(instances), "instance"))
	p.instances(instances)
}

func instanceWords(i client.Instance) string {
	kind := "recovery"
	if i.Drill {
		kind = "drill"
	}
	return fmt.Sprintf("%s (%s, %s)", i.ID, kind, lower(i.State))
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
