package show

import (
	"fmt"

	"lifeboat/internal/client"
)

// Points shows the recovery points of one server, newest first; more tells that
// there are older ones.
func (p *Printer) Points(s client.Server, points []client.Point, more bool) {
	name := clean(s.Name())
	if len(points) == 0 {
		p.printf("%s has no consistent recovery point. It is: %s. `lifeboat points %s --fuzzy` lists points that mix moments, if there are any.\n",
			name, p.Readiness(s), name)
		return
	}
	p.printf("Recovery points of %s (%s), newest first:\n\n", name, s.ID)
	rows := make([][]string, 0, len(points))
	for _, point := range points {
		rows = append(rows, []string{Duration(p.Now.Sub(point.Taken)), p.moment(&point.Taken), consistency(point), point.ID})
	}
	p.table([]string{"AGE", "TAKEN (" + p.zone() + ")", "CONSISTENCY", "ID"}, rows)
	if more {
		p.printf("\nThere are older ones: `--limit 0` shows all, `--until TIME` those up to a moment.\n")
	}
}

func consistency(p client.Point) string {
	switch p.Consistency {
	case "fuzzy":
		return "fuzzy: mixes moments, may not boot"
	case "":
		return "not told"
	}
	if p.FreezeMilliseconds > 0 {
		return fmt.Sprintf("%s, frozen %.0f ms", p.Consistency, p.FreezeMilliseconds)
	}
	return p.Consistency
}
