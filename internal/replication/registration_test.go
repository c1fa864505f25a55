package replication

import "testing"

func TestCompleteAddress(t *testing.T) {
	for _, test := range []struct{ address, host, want string }{
		{"", "dr.example", "dr.example:1500"},
		{":1600", "dr.example", "dr.example:1600"},
		{"0.0.0.0:1500", "10.0.2.2", "10.0.2.2:1500"},
		{"[::]:1500", "fd00::1", "[fd00::1]:1500"},
		{"127.0.0.1:1500", "10.0.2.2", "10.0.2.2:1500"},
		{"127.0.0.1:1500", "127.0.0.1", "127.0.0.1:1500"},
		{"[::1]:1500", "localhost", "localhost:1500"},
		{"vault.example:99", "dr.example", "vault.example:99"},
		{"vault.example", "dr.example", "vault.example:1500"},
	} {
		if got := CompleteAddress(test.address, test.host); got != test.want {
			t.Errorf("%q by %q is %q, want %q", test.address, test.host, got, test.want)
		}
	}
}
