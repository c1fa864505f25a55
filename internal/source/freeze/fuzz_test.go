package freeze

import (
	"strings"
	"testing"
)

// FuzzMount reads arbitrary lines of mountinfo, which hold names that users choose.
func FuzzMount(f *testing.F) {
	f.Add(`36 35 98:0 /root /dir rw,noatime master:1 - ext3 /dev/root rw,errors=continue`)
	f.Add(`36 35 98:0 / /with\040blank rw - xfs /dev/x\134y ro`)
	f.Add(`1 2 3:4 / \ rw - a \04 rw`)
	f.Fuzz(func(t *testing.T, line string) {
		m, _, _, ok := parseMount(line)
		if ok && (m.Dir == "" || m.Type == "" || m.Source == "" || strings.ContainsAny(m.Type, " \t")) {
			t.Errorf("%q is mount %+v", line, m)
		}
	})
}
