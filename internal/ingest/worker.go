package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

// worker makes an agent's messages happen in the vault, one after the other.
type worker struct {
	s       *session
	queue   *queue
	branch  Branch     // nil after a failed write, until it is opened anew
	head    vault.Head // last acknowledged
	volumes []vault.Volume
	left    []vault.VolumeID // of volumes: the machine has lost their disks
	epoch   Epoch            // nil: none open
	id      uint64
	// refusing: an epoch failed. What the agent sent before it knew is passed over.
	refusing bool
	owing    bool // credit was not given back yet
	stuck    stuck
}

// send is the last thing that is done for a message: from then on it is the agent, or its
// line, that may be slow.
func (w *worker) send(m replication.Message) error {
	w.stuck.end()
	return w.s.conn.Send(m)
}

// commitTimeout bounds a commit that goes on while the session or server ends.
const commitTimeout = 2 * time.Minute

func (w *worker) run(ctx context.Context) error {
	w.stuck = w.s.watchWorker()
	defer w.stuck.end()
	for {
		m := w.queue.take()
		if m == nil {
			if err := w.settle(); err != nil {
				return err
			}
			select {
			case <-w.queue.came:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		w.stuck.begin()
		err := w.handle(ctx, m)
		w.stuck.end()
		if err != nil {
			return err
		}
	}
}

// settle gives back the credit of what was processed.
func (w *worker) settle() error {
	if !w.owing {
		return nil
	}
	w.owing = false
	if n := w.s.credit.settle(time.Now()); n > 0 {
		return w.send(&replication.Credit{Bytes: n})
	}
	return nil
}

// processed gives the credit of a message back, once it is worth a message.
func (w *worker) processed(cost int) error {
	w.owing = true
	if w.s.credit.processed(cost) {
		return w.settle()
	}
	return nil
}

func (w *worker) close() {
	if w.epoch != nil {
		w.epoch.Abort()
	}
	if w.branch != nil {
		if err := w.branch.Close(); err != nil {
			w.s.srv.log.Error("close branch", "server", w.s.server, "err", err)
		}
	}
}

func (w *worker) handle(ctx context.Context, m replication.Message) error {
	switch m := m.(type) {
	case *replication.Inventory:
		return w.inventory(ctx, m)
	case *replication.Disks:
		return w.disks(m)
	case *replication.DigestRequest:
		return w.digests(ctx, m)
	case *replication.Begin:
		return w.begin(ctx, m)
	case *replication.Data:
		cost := m.Cost()
		err := w.data(m)
		m.Release()
		if err != nil {
			return err
		}
		return w.processed(cost)
	case *replication.Zero:
		if err := w.zero(m); err != nil {
			return err
		}
		return w.processed(m.Cost())
	case *replication.Commit:
		return w.commit(ctx, m)
	case *replication.Renewal:
		w.stuck.end()
		return w.s.renew(ctx, m)
	}
	return fmt.Errorf("no handler for %T", m)
}

func (w *worker) inventory(ctx context.Context, m *replication.Inventory) error {
	var p drs.SourceProperties
	if err := json.Unmarshal(m.JSON, &p); err != nil {
		return protocolError("inventory: %v", err)
	}
	p.LastUpdated = time.Now().UTC()
	if err := w.s.srv.cfg.Catalog.UpdateProperties(ctx, w.s.server, p); err != nil {
		w.s.srv.log.Error("record inventory", "server", w.s.server, "err", err) // the next session sends it again
	}
	return nil
}

// disks gives each disk its volume, see assign, and says which of them points hold from
// now on.
func (w *worker) disks(m *replication.Disks) error {
	if w.epoch != nil {
		return protocolError("disks within an epoch")
	}
	if len(m.Disks) == 0 {
		return protocolError("no disks")
	}
	if hasTwice(m.Disks) {
		return protocolError("a disk is named twice")
	}
	reply := &replication.Volumes{}
	places := assign(w.head.Volumes, m.Disks)
	apart := w.apart(m.Disks, places)
	w.volumes, w.left = nil, nil
	for i, place := range places {
		d, v := m.Disks[i], place.volume
		if place.known && d.Size < v.Size && d.State != replication.DiskLeft {
			told := &replication.Error{
				Code:     replication.CodeShrunk,
				Text:     fmt.Sprintf("disk %s has %d bytes, its replica %d", d.Device, d.Size, v.Size),
				NextStep: "give the disk its size back; or register it as a new server, with an empty --state directory and another --hostname",
			}
			w.s.status.fail(drs.FailedToCreateStagingDisks, told.Text, told.NextStep)
			return told
		}
		if d.Device == "" || d.Size <= 0 && d.State != replication.DiskLeft {
			return protocolError("disk %q of %d bytes", d.Device, d.Size)
		}
		if place.known && v.Device != d.Device {
			w.s.srv.log.Info("a disk has another name now", "server", w.s.server, "was", v.Device, "disk", d.Device, "identity", d.Identity)
		}
		reply.Volumes = append(reply.Volumes, replication.Volume{ID: uint32(v.ID), Known: place.known, Apart: apart[i]})
		if d.State == replication.DiskLeft {
			if place.known {
				w.leaves(v)
			}
			continue
		}
		v.Device, v.Size = d.Device, d.Size
		if d.Identity != "" {
			v.Identity = d.Identity
		}
		w.stands(&v, place.known, apart[i])
		w.volumes = append(w.volumes, v)
	}
	if len(w.volumes) == len(w.left) {
		return protocolError("all disks have left")
	}
	if err := w.others(m.DropOthers); err != nil {
		return err
	}
	w.s.status.disks(m.Disks, apart)
	return w.send(reply)
}

// others deals with the disks of the head that the agent does not name.
func (w *worker) others(drop bool) error {
	for _, v := range w.head.Volumes {
		if w.volume(v.ID) != nil || v.Apart == vault.Emptied {
			continue
		}
		if v.Apart == vault.Within && !drop {
			return w.missing(v)
		}
		w.leaves(v)
	}
	return nil
}

// missing refuses an agent that leaves out a disk of the head: its points would
// hold that disk as it once was, next to the others as they are.
func (w *worker) missing(v vault.Volume) error {
	told := &replication.Error{
		Code: replication.CodeDiskMissing,
		Text: fmt.Sprintf("disk %s belongs to source server %s, and the agent does not replicate it now", v.Device, w.s.server),
		NextStep: "name it with --disk again; or, when it is to be protected no longer, start the agent with --drop-missing: " +
			"points go on without it, and those there are keep it",
	}
	w.s.status.fail(drs.FailedToCreateStagingDisks, told.Text, told.NextStep)
	return told
}

func hasTwice(disks []replication.Disk) bool {
	seen := map[string]bool{}
	for _, d := range disks {
		if seen[d.Device] {
			return true
		}
		seen[d.Device] = true
	}
	return false
}

// digests answers with what the vault holds. Chunks past the replica's end, or
// that changed their length with its size, get a digest that equals none.
func (w *worker) digests(ctx context.Context, m *replication.DigestRequest) error {
	if w.branch == nil || w.epoch != nil {
		return protocolError("digests asked for within an epoch")
	}
	held := vault.Volume{}
	for _, v := range w.head.Volumes {
		if uint32(v.ID) == m.Volume {
			held = v
		}
	}
	wanted := w.volume(vault.VolumeID(m.Volume))
	if wanted == nil || m.First+uint64(m.Count) > wanted.Chunks() || m.First+uint64(m.Count) < m.First {
		return protocolError("digests of chunks %d+%d of volume %d", m.First, m.Count, m.Volume)
	}
	reply := &replication.Digests{Volume: m.Volume, First: m.First, Digests: make([][16]byte, m.Count)}
	comparable := held.Chunks()
	if held.Size != wanted.Size && comparable > 0 {
		comparable--
	}
	if m.First < comparable {
		n := min(uint64(m.Count), comparable-m.First)
		digests, err := w.branch.Digests(ctx, vault.VolumeID(m.Volume), m.First, int(n))
		if err != nil {
			return w.s.failed(err)
		}
		copy(reply.Digests, digests)
	}
	return w.send(reply)
}

func (w *worker) volume(id vault.VolumeID) *vault.Volume {
	for i := range w.volumes {
		if w.volumes[i].ID == id {
			return &w.volumes[i]
		}
	}
	return nil
}

func (w *worker) begin(ctx context.Context, m *replication.Begin) error {
	if w.refusing && !m.Restart {
		return nil
	}
	if w.epoch != nil || m.Epoch <= w.id || len(w.volumes) == 0 {
		return protocolError("epoch %d begins out of order", m.Epoch)
	}
	w.refusing, w.id = false, m.Epoch
	if w.branch == nil {
		branch, err := w.s.srv.cfg.Vault.OpenBranch(ctx, w.s.server)
		if err != nil {
			return w.refuse(err)
		}
		w.branch = branch
		if branch.Head().Hash != w.head.Hash || branch.Head().Number != w.head.Number {
			// The commit that failed was stored after all.
			return &replication.Error{Code: replication.CodeBusy, Text: "the vault holds more than was acknowledged", NextStep: "the agent connects again and compares"}
		}
	}
	// An epoch outlives the session's context only until close aborts it.
	volumes, unheld := w.emptying()
	epoch, err := w.branch.Begin(context.WithoutCancel(ctx), volumes)
	if err != nil {
		return w.refuse(err)
	}
	w.epoch = epoch
	w.s.status.started()
	for _, v := range unheld {
		if err := emptyVolume(epoch, v); err != nil {
			return w.refuse(err)
		}
		w.s.srv.log.Info("no recovery point holds a disk that has left: its data is freed", "server", w.s.server, "disk", v.Device, "identity", v.Identity)
	}
	return nil
}

func (w *worker) data(m *replication.Data) error {
	if w.refusing {
		return nil
	}
	v := w.volume(vault.VolumeID(m.Volume))
	if w.epoch == nil || v == nil {
		return protocolError("data for volume %d outside an epoch", m.Volume)
	}
	extents := make([]vault.Extent, len(m.Extents))
	for i, x := range m.Extents {
		if n := v.Blocks(); x.Count == 0 || x.Block >= n || uint64(x.Count) > n-x.Block {
			return protocolError("blocks %d+%d of volume %d with %d", x.Block, x.Count, m.Volume, n)
		}
		extents[i] = vault.Extent(x)
	}
	err := w.epoch.Append(vault.Frame{
		Volume: v.ID, Extents: extents, Codec: vault.Codec(m.Codec), RawLen: int(m.RawLen), Payload: m.Payload, Digest: m.Digest,
	})
	if err != nil {
		return w.refuse(err)
	}
	return nil
}

func (w *worker) zero(m *replication.Zero) error {
	if w.refusing {
		return nil
	}
	v := w.volume(vault.VolumeID(m.Volume))
	if w.epoch == nil || v == nil {
		return protocolError("zeros for volume %d outside an epoch", m.Volume)
	}
	if n := v.Blocks(); m.Count == 0 || m.Block >= n || uint64(m.Count) > n-m.Block {
		return protocolError("zeros in blocks %d+%d of volume %d with %d", m.Block, m.Count, m.Volume, n)
	}
	if err := w.epoch.Zero(v.ID, m.Block, m.Count); err != nil {
		return w.refuse(err)
	}
	return nil
}

// commit makes the epoch durable, and only then acknowledges it.
func (w *worker) commit(ctx context.Context, m *replication.Commit) error {
	if w.refusing {
		return nil
	}
	if w.epoch == nil || m.Epoch != w.id {
		return protocolError("commit of epoch %d out of order", m.Epoch)
	}
	var point *drs.RecoveryPoint
	if m.Point {
		point = w.point(m, time.Now())
		w.s.status.sealing()
	}
	// Not cut short by the end of the session: half a commit helps nobody.
	sure, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	head, err := w.epoch.Commit(sure, point)
	if err != nil {
		return w.refuse(err)
	}
	w.epoch, w.head = nil, head
	w.s.srv.wrote(w.s.server, head, w.s.instance)
	w.s.accept()
	ack := &replication.Ack{Epoch: m.Epoch, HeadNumber: head.Number, HeadHash: head.Hash}
	if point != nil {
		point.Epoch = head.Number
		ack.Point = string(point.ID)
		if err := w.s.srv.cfg.Catalog.AddPoint(sure, *point); err != nil {
			w.s.srv.log.Error("record recovery point; it is in the vault and will be found there", "server", w.s.server, "point", point.ID, "err", err)
		}
		w.s.status.sealed(*point)
		if m.Request > 0 {
			w.s.answer(m.Request, answer{point: *point})
		}
		w.s.srv.log.Info("recovery point", "server", w.s.server, "point", point.ID, "consistency", point.Consistency, "epoch", point.Epoch)
	}
	return w.send(ack)
}

// refuse answers a failed write. Where it may pass, the agent is told to begin
// again and the branch will be opened anew, for a writer that failed is
// finished. Otherwise the session ends.
func (w *worker) refuse(err error) error {
	if w.epoch != nil {
		w.epoch.Abort()
		w.epoch = nil
	}
	told := w.s.explain(err)
	w.s.logRefusal(w.id, told.Text, err)
	if told.Code != replication.CodeBusy {
		return w.s.failed(err)
	}
	if w.branch != nil {
		if err := w.branch.Close(); err != nil {
			w.s.srv.log.Error("close branch", "server", w.s.server, "err", err)
		}
		w.branch = nil
	}
	w.refusing = true
	w.s.status.warn(drs.SnapshotsFailure, told.Text, told.NextStep)
	w.s.refuse(told.Text + ": " + told.NextStep)
	return w.send(&replication.Refused{Epoch: w.id, RetryAfter: retryAfter, Text: told.Text, NextStep: told.NextStep})
}

// retryAfter is the least an agent waits after a refusal; it waits longer when
// refused again and again.
const retryAfter = time.Second

// failed ends the session for an error of the vault.
func (s *session) failed(err error) error {
	told := s.explain(err)
	if told.Code == replication.CodeDamaged {
		s.status.fail(drs.SnapshotsFailure, told.Text, told.NextStep)
	}
	s.srv.log.Error("vault", "server", s.server, "err", err)
	return told
}

// explain says what an error of the vault means to an agent. CodeBusy may pass.
func (s *session) explain(err error) *replication.Error {
	var corrupt *vault.CorruptError
	switch {
	case errors.Is(err, vault.ErrFenced):
		return &replication.Error{Code: replication.CodeInternal, Text: "another writer took over this server's branch", NextStep: "the agent connects again by itself"}
	case errors.Is(err, vault.ErrAbsent):
		return &replication.Error{Code: replication.CodeDamaged, Text: "the vault has lost this server's branch: " + err.Error(),
			NextStep: "restore the vault from a copy; to begin anew without the old points, remove the agent's state directory and register again"}
	case errors.As(err, &corrupt), errors.Is(err, vault.ErrNewerFormat), errors.Is(err, vault.ErrWrongKey):
		return &replication.Error{Code: replication.CodeDamaged, Text: "the vault's copy cannot be read: " + err.Error(), NextStep: "restore the named object from a copy of the vault"}
	}
	if t := blob.TroubleOf(err); t != nil {
		return &replication.Error{Code: replication.CodeBusy, Text: t.Text, NextStep: t.NextStep}
	}
	return &replication.Error{Code: replication.CodeBusy, Text: "the vault cannot store data now: " + blob.Short(err.Error(), 500), NextStep: "see the server's log; replication goes on by itself when the cause is gone"}
}
