package drs_test

import (
	"errors"
	"slices"
	"testing"

	"lifeboat/internal/drs"
)

// Orders lead only where the transition table of states does, too.
func TestOrders(t *testing.T) {
	live := []drs.ReplicationState{
		drs.ReplicationInitiating, drs.ReplicationInitialSync, drs.ReplicationCreatingSnapshot, drs.ReplicationContinuous,
		drs.ReplicationBacklog, drs.ReplicationRescan, drs.ReplicationPaused, drs.ReplicationStalled,
	}
	all := slices.Concat(live, []drs.ReplicationState{drs.ReplicationStopped, drs.ReplicationDisconnected})
	for order, taken := range map[drs.ReplicationOrder]struct {
		in []drs.ReplicationState
		to drs.ReplicationState
	}{
		drs.OrderStop:       {live, drs.ReplicationStopped},
		drs.OrderStart:      {[]drs.ReplicationState{drs.ReplicationStopped}, drs.ReplicationInitiating},
		drs.OrderRetry:      {[]drs.ReplicationState{drs.ReplicationStalled, drs.ReplicationStopped, drs.ReplicationDisconnected}, drs.ReplicationInitiating},
		drs.OrderDisconnect: {all, drs.ReplicationDisconnected},
		drs.OrderDelete:     {[]drs.ReplicationState{drs.ReplicationDisconnected}, drs.ReplicationDisconnected},
	} {
		for _, state := range all {
			to, err := order.Of("s-0123456789abcdef0", state)
			if slices.Contains(taken.in, state) {
				if err != nil || to != taken.to {
					t.Errorf("%s in %s: %s, %v; want %s", order, state, to, err, taken.to)
				}
				if _, err := state.Next(to); err != nil {
					t.Errorf("%s in %s: %v", order, state, err)
				}
				continue
			}
			want := drs.KindConflict
			if order == drs.OrderRetry {
				want = drs.KindValidation
			}
			var refused *drs.Error
			if !errors.As(err, &refused) || refused.Kind != want || to != state {
				t.Errorf("%s in %s: %s, %v", order, state, to, err)
			}
		}
	}
}

func TestCheckPITPolicy(t *testing.T) {
	with := func(change func([]drs.PITRule)) []drs.PITRule {
		rules := drs.DefaultPITPolicy()
		change(rules)
		return rules
	}
	good := map[string][]drs.PITRule{
		"default":     drs.DefaultPITPolicy(),
		"a year":      with(func(r []drs.PITRule) { r[2].Retention = 365 }),
		"other order": with(func(r []drs.PITRule) { r[0], r[2] = r[2], r[0] }),
		"without IDs": with(func(r []drs.PITRule) { r[0].ID, r[1].ID, r[2].ID = 0, 0, 0 }),
	}
	for name, rules := range good {
		got, err := drs.CheckPITPolicy(rules)
		if err != nil || len(got) != 3 {
			t.Errorf("%s: %v, %v", name, got, err)
			continue
		}
		for i, r := range got {
			if r.Units != rules[i].Units || r.Retention != rules[i].Retention || r.ID == 0 || !r.Enabled {
				t.Errorf("%s: rule %d is %+v", name, i, r)
			}
		}
	}
	for name, rules := range map[string][]drs.PITRule{
		"none":          nil,
		"two":           drs.DefaultPITPolicy()[:2],
		"a unit twice":  with(func(r []drs.PITRule) { r[1] = r[0] }),
		"other minutes": with(func(r []drs.PITRule) { r[0].Interval = 5 }),
		"other hours":   with(func(r []drs.PITRule) { r[1].Retention = 25 }),
		"no day":        with(func(r []drs.PITRule) { r[2].Retention = 0 }),
		"too long":      with(func(r []drs.PITRule) { r[2].Retention = 366 }),
		"every 2 days":  with(func(r []drs.PITRule) { r[2].Interval = 2 }),
		"switched off":  with(func(r []drs.PITRule) { r[2].Enabled = false }),
		"a wrong ID":    with(func(r []drs.PITRule) { r[2].ID = 1 }),
	} {
		var refused *drs.Error
		if got, err := drs.CheckPITPolicy(rules); !errors.As(err, &refused) || refused.Kind != drs.KindValidation || len(refused.Fields) == 0 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
