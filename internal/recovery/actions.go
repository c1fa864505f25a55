package recovery

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// notRun is why no post-launch action has succeeded.
const notRun = "Not run: this version of Lifeboat keeps post-launch actions and does not execute them."

// actions says what becomes of the server's post-launch actions: they are kept and
// not executed yet, so each is one that failed, and the job's log says so in note.
func (r serverRun) actions(ctx context.Context, server drs.SourceServer) (runs []drs.LaunchActionRun, note string, err error) {
	if !server.LaunchConfiguration.PostLaunchEnabled {
		return nil, "", nil
	}
	var all []drs.LaunchAction
	err = r.service.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		all, err = tx.LaunchActions(ctx, string(server.ID))
		return err
	})
	if err != nil {
		return nil, "", err
	}
	for _, a := range all {
		if a.Active {
			runs = append(runs, drs.LaunchActionRun{Action: a, ID: uuid.NewString(), Status: drs.RunFailed, Reason: notRun})
		}
	}
	if len(runs) == 0 {
		return nil, "", nil
	}
	return runs, fmt.Sprintf("The server has %d active post-launch actions, which are not run: this version of Lifeboat does not execute them.", len(runs)), nil
}
