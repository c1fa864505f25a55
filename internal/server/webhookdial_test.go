package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lifeboat/internal/drs"
)

// A webhook of another account is no way to what listens on this machine.
func TestWebhooksStayOutside(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer inside.Close()
	s := &running{dir: &DataDir{Settings: Settings{Account: "111122223333"}}}
	transport := s.webhookTransport()
	post := func(account string) error {
		client := http.Client{Transport: transport(drs.Account{ID: account})}
		answer, err := client.Post(inside.URL, "application/json", strings.NewReader("{}"))
		if err == nil {
			err = answer.Body.Close()
		}
		return err
	}
	if err := post("111122223333"); err != nil {
		t.Errorf("the server's own account: %v", err)
	}
	if err := post("444455556666"); err == nil || !strings.Contains(err.Error(), "may not lead") {
		t.Errorf("another account: %v", err)
	}
	for address, refused := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true, "0.0.0.0:80": true, "[::]:443": true,
		"169.254.169.254:80": true, "[fe80::1%lo]:80": true, "[ff02::1]:80": true, "10.250.1.2:80": false, "192.0.2.1:443": false,
	} {
		if err := refuseOwnAddresses("tcp", address, nil); (err != nil) != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
}
