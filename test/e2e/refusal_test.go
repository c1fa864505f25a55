package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
	"github.com/aws/smithy-go"
)

// What StartRecovery refuses, it refuses whole, with the documented exception.
func TestStartRecoveryRefuses(t *testing.T) {
	in := install(t)
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, []byte(strings.Repeat("lifeboat", 1<<17)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, server := in.startAgent(t, image, "--hostname", "one")
	point := aws.ToString(in.points(t, server)[0].SnapshotID)

	image2 := filepath.Join(t.TempDir(), "disk2.img")
	if err := os.WriteFile(image2, []byte(strings.Repeat("tnemelif", 1<<17)), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "agent", "--server", in.env["AWS_ENDPOINT_URL"], "--ca-cert", in.env["AWS_CA_BUNDLE"], "--token", in.env["LIFEBOAT_TOKEN"],
		"--state", filepath.Join(t.TempDir(), "state"), "--disk", image2, "--hostname", "two")
	var other string
	eventually(t, "the second server has a point", func() (string, bool) {
		out, err := in.drs.DescribeSourceServers(t.Context(), &drs.DescribeSourceServersInput{})
		if err != nil || len(out.Items) != 2 {
			return fmt.Sprintf("%d servers, %v", len(out.Items), err), false
		}
		for _, s := range out.Items {
			if id := aws.ToString(s.SourceServerID); id != server {
				other = id
			}
		}
		return "no point", len(in.points(t, other)) > 0
	})

	ask := func(ids ...types.StartRecoveryRequestSourceServer) error {
		_, err := in.drs.StartRecovery(t.Context(), &drs.StartRecoveryInput{SourceServers: ids, IsDrill: aws.Bool(true)})
		return err
	}
	of := func(id, point string) types.StartRecoveryRequestSourceServer {
		s := types.StartRecoveryRequestSourceServer{SourceServerID: aws.String(id)}
		if point != "" {
			s.RecoverySnapshotID = aws.String(point)
		}
		return s
	}
	many := make([]types.StartRecoveryRequestSourceServer, 201)
	for i := range many {
		many[i] = of(fmt.Sprintf("s-%017x", i), "")
	}
	const unknown = "s-00000000000000000"
	for _, c := range []struct {
		name, code, says string
		servers          []types.StartRecoveryRequestSourceServer
	}{
		{"no server", "ValidationException", "sourceServers", []types.StartRecoveryRequestSourceServer{}},
		{"201 servers", "ValidationException", "sourceServers", many},
		{"malformed ID", "ValidationException", "sourceServerID", []types.StartRecoveryRequestSourceServer{of("s-short", "")}},
		{"unknown server", "ConflictException", unknown, []types.StartRecoveryRequestSourceServer{of(unknown, "")}},
		{"one of two unknown", "ConflictException", unknown, []types.StartRecoveryRequestSourceServer{of(server, ""), of(unknown, "")}},
		{"same server twice", "ConflictException", "twice", []types.StartRecoveryRequestSourceServer{of(server, ""), of(server, "")}},
		{"unknown point", "ConflictException", "pit-00000000000000000", []types.StartRecoveryRequestSourceServer{of(server, "pit-00000000000000000")}},
		{"point of another server", "ConflictException", "not one of source server " + other, []types.StartRecoveryRequestSourceServer{of(other, point)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := ask(c.servers...)
			var refused smithy.APIError
			if !errors.As(err, &refused) {
				t.Fatalf("got %v", err)
			}
			if refused.ErrorCode() != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v; want %s that says %q", err, c.code, c.says)
			}
		})
	}
	jobs, err := in.drs.DescribeJobs(t.Context(), &drs.DescribeJobsInput{})
	if err != nil || len(jobs.Items) != 0 {
		t.Fatalf("refused requests left %d jobs, %v", len(jobs.Items), err)
	}

	// A server in a job is in no other.
	out, err := in.drs.StartRecovery(t.Context(), &drs.StartRecoveryInput{
		SourceServers: []types.StartRecoveryRequestSourceServer{of(server, "")}, IsDrill: aws.Bool(true),
	})
	if err != nil {
		t.Fatal(err)
	}
	job := aws.ToString(out.Job.JobID)
	var conflict *types.ConflictException
	if err := ask(of(other, ""), of(server, "")); !errors.As(err, &conflict) || !strings.Contains(err.Error(), job) {
		t.Errorf("a server in job %s was asked for again: %v", job, err)
	}
	// A disk of text boots nothing: the machine runs all the same.
	in.launched(t, in.waitJob(t, job))
}

// A data directory that is damaged or half made is refused, and nothing in it
// is made anew.
func TestDamagedDataDirectoryIsRefused(t *testing.T) {
	in := install(t)
	if err := in.server.stop(t); err != nil {
		t.Fatalf("stop: %v\n%s", err, in.server.log.Tail(20))
	}
	for _, name := range []string{"lifeboat.json", "master.key", "ca.pem", "ca-key.pem", "admin-access-key.json", "lifeboat.db", "vault"} {
		for _, how := range []string{"missing", "damaged"} {
			t.Run(name+" "+how, func(t *testing.T) {
				path, aside := filepath.Join(in.dir, name), filepath.Join(t.TempDir(), "aside")
				if err := os.Rename(path, aside); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := errors.Join(os.RemoveAll(path), os.Rename(aside, path)); err != nil {
						t.Fatal(err)
					}
				}()
				if how == "damaged" {
					if err := os.WriteFile(path, []byte("not what it was"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				before, _ := os.ReadDir(in.dir)
				_, errs, code := lifeboat(t, nil, "server", "--data", in.dir)
				if code != 1 {
					t.Errorf("exit %d: %s", code, errs)
				}
				if len(errs) > 2000 || !strings.Contains(errs, "lifeboat: ") {
					t.Errorf("not a clear error: %s", errs)
				}
				t.Logf("%s", errs)
				after, _ := os.ReadDir(in.dir)
				if how == "missing" && len(after) != len(before) {
					t.Errorf("files before %v, after %v", before, after)
				}
			})
		}
	}
	in.startServer(t) // whole again, it starts

	half := t.TempDir()
	if err := os.WriteFile(filepath.Join(half, "master.key"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs, code := lifeboat(t, nil, "server", "--data", half)
	if code != 1 || !strings.Contains(errs, "cut short") {
		t.Errorf("a half-made directory: exit %d: %s", code, errs)
	}
}
