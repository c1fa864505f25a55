package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lifeboat/internal/iam"
	"lifeboat/internal/server"
)

type envCommand struct {
	Data string `required:"" placeholder:"DIR" help:"Data directory of the server." type:"path"`
}

// Run prints what `eval "$(lifeboat env --data DIR)"` needs.
func (c *envCommand) Run(ctx context.Context) error {
	if c.Data == "" {
		return usageError{errors.New("name the server's data directory with --data")}
	}
	d, err := awaitDataDir(ctx, c.Data)
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

// awaitDataDir reads a data directory, and gives a server that was started just
// now the moment that it needs to make one.
func awaitDataDir(ctx context.Context, path string) (*server.DataDir, error) {
	const patience = 5 * time.Second
	deadline := time.Now().Add(patience)
	for {
		d, err := server.ReadDataDir(path)
		_, absent := os.Stat(path)
		if err == nil || !errors.Is(err, server.ErrStarting) && absent == nil || time.Now().After(deadline) {
			return d, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
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
