package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"lifeboat/internal/iam"
	"lifeboat/internal/server"
)

type envCommand struct {
	Data string `required:"" placeholder:"DIR" help:"Data directory of the server." type:"path"`
}

// Run prints what `eval "$(lifeboat env --data DIR)"` needs.
func (c *envCommand) Run() error {
	d, err := server.ReadDataDir(c.Data)
	if err != nil {
		return err
	}
	tokens, err := d.InstallTokens()
	if err != nil {
		return err
	}
	endpoint := "https://" + reachable(d.Settings.Listen)
	ca, err := filepath.Abs(iam.AuthorityCertFile(c.Data))
	if err != nil {
		return err
	}
	for _, line := range [][2]string{
		{"AWS_ENDPOINT_URL", endpoint},
		{"AWS_ENDPOINT_URL_DRS", endpoint},
		{"AWS_CA_BUNDLE", ca},
		{"AWS_REGION", d.Settings.Region},
		{"AWS_DEFAULT_REGION", d.Settings.Region},
		{"AWS_ACCESS_KEY_ID", d.AdminKey.ID},
		{"AWS_SECRET_ACCESS_KEY", d.AdminKey.Secret.Reveal()},
		{"LIFEBOAT_TOKEN", tokens.Issue(d.Account(), iam.InstallTokenLife).Reveal()},
	} {
		fmt.Printf("export %s=%s\n", line[0], quote(line[1]))
	}
	return nil
}

// reachable turns a listener's address into one to connect to.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// quote makes one shell word of s.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
