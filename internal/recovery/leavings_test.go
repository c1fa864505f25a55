package recovery_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery"
	"lifeboat/internal/vault/blob"
)

// outage is a store that cannot be written while it is away.
type outage struct {
	blob.Store
	away *atomic.Bool
}

var errAway = errors.New("the store is away")

func (o outage) Delete(ctx context.Context, name string) error {
	if o.away.Load() {
		return errAway
	}
	return o.Store.Delete(ctx, name)
}

func (o outage) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	if o.away.Load() {
		return errAway
	}
	return o.Store.PutIfAbsent(ctx, name, parts...)
}

// Earlier instances that a store's outage keeps from being removed do not hinder
// the launch, each is tried, and they are gone some time after the outage.
func TestLeavingsAreRemovedLater(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	var away atomic.Bool
	s.stop()
	s.reopenVaultAs(t, func(store blob.Store) blob.Store { return outage{store, &away} })
	s.config.RemoveEvery = 20 * time.Millisecond
	s.run(t)
	protected := func(value string) {
		for _, i := range s.instances(t) {
			err := s.db.ChangeTags(t.Context(), drs.Resource{Account: account, Type: drs.TypeRecoveryInstance, ID: string(i.ID)},
				func(tags drs.Tags) error { tags[recovery.TerminationProtection] = value; return nil })
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	s.launch(t, ask(server))
	protected("true")
	s.launch(t, ask(server))
	protected("false") // two earlier instances

	away.Store(true)
	job, log := s.launch(t, ask(server))
	if job.Servers[0].Status != drs.LaunchLaunched {
		t.Errorf("%+v", job.Servers)
	}
	failures := 0
	for _, l := range log {
		if l.Event == drs.EventCleanupFail {
			failures++
			if !strings.Contains(l.RawError, "tries again by itself") {
				t.Errorf("no next step: %q", l.RawError)
			}
		}
	}
	if all := s.instances(t); failures != 2 || len(all) != 3 {
		t.Errorf("%d removals failed, want 2; instances: %+v\n%s", failures, all, events(log))
	}
	away.Store(false)
	settle(t, "only the new instance is there", func() bool {
		all := s.instances(t)
		return len(all) == 1 && all[0].ID == job.Servers[0].Instance
	})
}
