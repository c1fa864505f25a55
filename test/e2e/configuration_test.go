package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/db"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/s3"
	"lifeboat/internal/vault/blob/s3/s3test"
)

// call sends an operation that the SDK does not have yet, and returns one member of
// its reply below others.
func (in *installation) call(t *testing.T, operation string, input map[string]any, path ...string) string {
	t.Helper()
	body, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, in.env["AWS_ENDPOINT_URL"]+"/"+operation, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	sum := sha256.Sum256(body)
	keys, err := in.drs.Options().Credentials.Retrieve(t.Context())
	if err == nil {
		err = v4.NewSigner().SignHTTP(t.Context(), keys, r, hex.EncodeToString(sum[:]), "drs", in.env["AWS_REGION"], time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	response, err := in.drs.Options().HTTPClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode/100 != 2 {
		t.Fatalf("%s: %s: %s, %v", operation, response.Status, text, err)
	}
	var reply any
	if err := json.Unmarshal(text, &reply); err != nil {
		t.Fatal(err)
	}
	for _, member := range path {
		object, _ := reply.(map[string]any)
		reply = object[member]
	}
	out, _ := reply.(string)
	return out
}

// tables are the configuration as the database holds it.
func (in *installation) tables(t *testing.T) string {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(in.dir, "lifeboat.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, _, err := d.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// kept is the configuration as the vault holds it.
func (in *installation) kept(t *testing.T, store blob.Store) string {
	t.Helper()
	keys, err := vault.LoadKeyFile(filepath.Join(in.dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(t.Context(), store, keys, vault.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	document, err := v.OwnRecord(t.Context())
	if err != nil {
		return err.Error() // not yet
	}
	text, err := gzip.NewReader(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ Configuration json.RawMessage }
	if err := json.NewDecoder(text).Decode(&record); err != nil {
		t.Fatal(err)
	}
	return string(record.Configuration)
}

// configure sets up one of everything for a source server.
func (in *installation) configure(t *testing.T, server string) (user map[string]string) {
	t.Helper()
	ctx, arn := t.Context(), in.describe(t, server).Arn
	template, err := in.drs.CreateLaunchConfigurationTemplate(ctx, &drs.CreateLaunchConfigurationTemplateInput{CopyTags: aws.Bool(true), PostLaunchEnabled: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.drs.UpdateLaunchConfiguration(ctx, &drs.UpdateLaunchConfigurationInput{SourceServerID: aws.String(server), PostLaunchEnabled: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	for i, resource := range []*string{template.LaunchConfigurationTemplate.LaunchConfigurationTemplateID, aws.String(server)} {
		if _, err := in.drs.PutLaunchAction(ctx, &drs.PutLaunchActionInput{
			ResourceId: resource, ActionId: aws.String("11111111-2222-4333-8444-55555555555" + string(rune('0'+i))), ActionCode: aws.String("AWS-RunShellScript"),
			ActionVersion: aws.String("$DEFAULT"), Name: aws.String("check it"), Order: aws.Int32(1001), Active: aws.Bool(false), Optional: aws.Bool(true),
			Category: types.LaunchActionCategoryOther, Description: aws.String("Looks whether it answers"),
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.drs.CreateSourceNetwork(ctx, &drs.CreateSourceNetworkInput{
		OriginAccountID: aws.String("123456789012"), OriginRegion: aws.String("eu-west-1"), VpcID: aws.String("vpc-0123456789abcdef0"), Tags: map[string]string{"net": "a"},
	}); err != nil {
		t.Fatal(err)
	}
	plan := in.call(t, "CreateRecoveryPlan", map[string]any{"name": "Shop", "tags": map[string]any{"team": "a"}}, "recoveryPlan", "recoveryPlanArn")
	in.call(t, "CreateRecoveryPlanStep", map[string]any{"recoveryPlanArn": plan, "stepName": "first", "configuration": map[string]any{
		"serverStepConfiguration": map[string]any{"servers": []any{map[string]any{"serverArn": aws.ToString(arn)}}}}})

	verb := func(args ...string) string {
		t.Helper()
		out, errs, code := lifeboat(t, in.env, args...)
		if code != 0 {
			t.Fatalf("lifeboat %s: exit %d: %s", strings.Join(args, " "), code, errs)
		}
		return out
	}
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"drs:Describe*","Resource":"*"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	verb("iam", "user", "create", "auditor")
	verb("iam", "policy", "put", "look", policy)
	verb("iam", "policy", "attach", "look", "--user", "auditor")
	verb("webhook", "add", "https://127.0.0.1:9/none")
	var made struct {
		AccessKey struct {
			AccessKeyID     string `json:"accessKeyId"`
			SecretAccessKey string `json:"secretAccessKey"`
		} `json:"accessKey"`
	}
	out := verb("iam", "access-key", "create", "auditor", "--json")
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.AccessKey.SecretAccessKey == "" {
		t.Fatalf("access key: %s, %v", out, err)
	}
	return map[string]string{"AWS_ACCESS_KEY_ID": made.AccessKey.AccessKeyID, "AWS_SECRET_ACCESS_KEY": made.AccessKey.SecretAccessKey}
}

// works checks that all is as it was: the user with the key and policy of before, the
// plan, and a launch.
func (in *installation) works(t *testing.T, server string, user map[string]string) {
	t.Helper()
	env := map[string]string{}
	for name, value := range in.env {
		env[name] = value
	}
	for name, value := range user {
		env[name] = value
	}
	if out, errs, code := lifeboat(t, env, "servers"); code != 0 || !strings.Contains(out, server) {
		t.Errorf("servers, as the user of before: exit %d: %s%s", code, out, errs)
	}
	if _, errs, code := lifeboat(t, env, "recover", server, "--drill", "--yes"); code != 3 || !strings.Contains(errs, "StartRecovery") {
		t.Errorf("recover, as a user who may only look: exit %d: %s", code, errs)
	}
	job := in.recover(t, server, true)
	if _, errs, code := lifeboat(t, in.env, "terminate", "--yes", in.launched(t, job)); code != 0 {
		t.Errorf("terminate: exit %d: %s", code, errs)
	}
}

// What people set up comes back with the vault alone, without a word of it lost: after
// the database, and after the whole data directory, whose agents just go on.
func TestConfigurationComesBackFromTheVault(t *testing.T) {
	t.Run("database lost, vault in a directory", func(t *testing.T) {
		in := install(t)
		_, server := in.startAgent(t, randomImage(t, 8, 21))
		user := in.configure(t, server)
		if err := in.server.stop(t); err != nil {
			t.Fatal(err)
		}
		want := in.tables(t)
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(filepath.Join(in.dir, "lifeboat.db"+suffix)); suffix == "" && err != nil {
				t.Fatal(err)
			}
		}
		out := must(t, "vault", "rebuild", "--data", in.dir)
		if !strings.Contains(out, "1 in recovery plans") || !strings.Contains(out, "1 in launch templates") || !strings.Contains(out, "2 in launch actions") {
			t.Errorf("rebuild tells: %s", out)
		}
		if got := in.tables(t); got != want {
			t.Errorf("came back as\n%s\nwant\n%s", got, want)
		}
		in.startServer(t)
		in.works(t, server, user)
	})
	t.Run("everything lost, vault in a bucket", func(t *testing.T) {
		bucket := s3test.Start(t).Location()
		store, err := s3.Open(t.Context(), bucket, s3.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		in := installAt(t, filepath.Join(t.TempDir(), "data"), "--vault", bucket.String(), "--journal", "72h")
		agent, server := in.startAgent(t, randomImage(t, 8, 22))
		user := in.configure(t, server)
		if err := in.server.stop(t); err != nil {
			t.Fatal(err)
		}
		must(t, "vault", "rotate-key", "--data", in.dir) // the root secret is not the master key any more
		key := filepath.Join(t.TempDir(), "copy.key")
		raw, err := os.ReadFile(filepath.Join(in.dir, "master.key"))
		if err == nil {
			err = os.WriteFile(key, raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		in.startServer(t)
		in.call(t, "CreateRecoveryPlan", map[string]any{"name": "Late"})
		want := in.tables(t)
		eventually(t, "the vault keeps what the tables hold", func() (string, bool) {
			got := in.kept(t, store)
			return got, got == want
		})
		in.server.kill()
		settings, err := os.ReadFile(filepath.Join(in.dir, "lifeboat.json"))
		if err != nil {
			t.Fatal(err)
		}
		address := func(name string) string {
			return regexp.MustCompile(`"` + name + `": "(.*)"`).FindStringSubmatch(string(settings))[1]
		}
		if err := os.RemoveAll(in.dir); err != nil {
			t.Fatal(err)
		}
		out := must(t, "vault", "rebuild", "--data", in.dir, "--vault", bucket.String(), "--master-key", key)
		if !strings.Contains(out, "go on by themselves") {
			t.Errorf("rebuild tells: %s", out)
		}
		if got := in.tables(t); got != want {
			t.Errorf("came back as\n%s\nwant\n%s", got, want)
		}
		if again, err := os.ReadFile(filepath.Join(in.dir, "lifeboat.json")); err != nil || !strings.Contains(string(again), `"journal": "72h0m0s"`) {
			t.Errorf("settings %s, %v: the journal window is lost, and points with it", again, err)
		}
		env := in.env
		in.startServer(t, "--listen", address("listen"), "--replication-listen", address("replicationListen"))
		if in.env["AWS_ACCESS_KEY_ID"] != env["AWS_ACCESS_KEY_ID"] || in.env["AWS_SECRET_ACCESS_KEY"] != env["AWS_SECRET_ACCESS_KEY"] {
			t.Error("the admin's access key is another one")
		}
		in.waitContinuous(t, agent)
		in.works(t, server, user)
	})
}
