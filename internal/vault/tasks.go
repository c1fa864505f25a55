package vault

import (
	"context"
	"sync"
)

// taskList runs the making of derived data in the background, one task at a time
// and at most one of a name waiting. Nothing depends on a task being done.
type taskList struct {
	mu      sync.Mutex
	names   map[string]bool // waiting for their turn; guarded by mu
	running sync.Mutex      // held by the task that runs
	wg      sync.WaitGroup
}

// background starts a task unless one of that name is waiting. A running one does
// not count: what it looked at may have changed since.
func (v *Vault) background(name string, task func(ctx context.Context) error) {
	t := &v.tasks
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names[name] || v.readOnly || v.ctx.Err() != nil {
		return
	}
	if t.names == nil {
		t.names = map[string]bool{}
	}
	t.names[name] = true
	t.wg.Go(func() {
		t.running.Lock()
		defer t.running.Unlock()
		t.mu.Lock()
		delete(t.names, name)
		t.mu.Unlock()
		if v.ctx.Err() != nil {
			return
		}
		if err := task(v.ctx); err != nil && v.ctx.Err() == nil {
			v.log.Warn("background task of the vault", "task", name, "err", err)
		}
	})
}

func (t *taskList) wait() { t.wg.Wait() }

// derive is background for what is derived from a branch, so that nothing of it is made
// once the branch is being deleted.
func (b *branch) derive(name string, task func(ctx context.Context) error) {
	b.v.background(name, func(ctx context.Context) error {
		b.deriving.Lock()
		defer b.deriving.Unlock()
		if b.ended {
			return nil
		}
		return task(ctx)
	})
}

// endDeriving waits for the task that runs, and keeps the others from beginning.
func (b *branch) endDeriving() {
	b.deriving.Lock()
	defer b.deriving.Unlock()
	b.ended = true
}
