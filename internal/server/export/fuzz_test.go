package export

import "testing"

// FuzzBlockName reads the names that NBD clients ask for: what is taken for a disk's is
// spelt in the one way there is.
func FuzzBlockName(f *testing.F) {
	f.Add("s-0123456789abcdef0/pit-0123456789abcdef0/0")
	f.Add("s-0123456789abcdef0/pit-0123456789abcdef0/+1")
	f.Add("//")
	f.Fuzz(func(t *testing.T, name string) {
		if at, ok := parseBlockName(name); ok && BlockName(at.server, at.point, at.disk) != name {
			t.Errorf("%q is taken for %+v", name, at)
		}
	})
}
