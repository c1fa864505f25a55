package recovery_test

import (
	"context"
	"testing"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// The server's tags go to its instance where they are to; what the service says of
// an instance they do not change.
func TestCopiedTags(t *testing.T) {
	s := newSite(t)
	id, _ := s.protect(t, "web")
	_, err := s.db.Configure(t.Context(), account, id, func(_ context.Context, _ db.Tx, server *drs.SourceServer) error {
		server.LaunchConfiguration.CopyTags = true
		return nil
	})
	if err == nil {
		err = s.db.ChangeTags(t.Context(), drs.Resource{Account: account, Type: drs.TypeSourceServer, ID: string(id)}, func(tags drs.Tags) error {
			tags["team"], tags["drs.amazonaws.com-job"] = "blue", "another"
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	job, _ := s.launch(t, ask(id))
	got := s.instances(t)[0].Tags
	if got["team"] != "blue" || got["drs.amazonaws.com-job"] != string(job.ID) || got["drs.amazonaws.com-source-server"] != string(id) || got["Name"] == "" {
		t.Errorf("tags %v of job %s", got, job.ID)
	}
}
