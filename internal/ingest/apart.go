package ingest

import (
	"slices"

	"lifeboat/internal/replication"
	"lifeboat/internal/vault"
)

// Which disks points hold. A disk that is new to a server which has points is set aside
// until its agent says that all of it was sent: points of the others go on meanwhile, and
// the first one after that holds it, too. A disk that has left is set aside as well; once no
// kept point holds it its volume is emptied.

// apart tells of each disk whether points go on without it. An agent that knows nothing of
// that makes points of all its disks, and only when it has sent all of each.
func (w *worker) apart(disks []replication.Disk, places []place) []bool {
	apart := make([]bool, len(disks))
	if w.s.version < replication.ApartVersion {
		return apart
	}
	others := false // that points hold anyway
	for i, d := range disks {
		joins := d.State == replication.DiskPresent && (!places[i].known || places[i].volume.Apart != vault.Within)
		apart[i] = d.State == replication.DiskLeft || joins && w.head.LastPoint != nil
		others = others || !apart[i]
	}
	if !others { // a point without any disk is none
		for i, d := range disks {
			apart[i] = d.State == replication.DiskLeft
		}
	}
	return apart
}

// stands has points hold a volume, or not, and tells of it when that is news.
func (w *worker) stands(v *vault.Volume, known, apart bool) {
	was := v.Apart
	v.Apart = vault.Within
	if apart {
		v.Apart = vault.SetAside
	}
	switch log := w.s.srv.log; {
	case apart && !known:
		log.Info("a new disk: points hold it once all of it is in the vault", "server", w.s.server, "disk", v.Device, "identity", v.Identity)
	case !apart && known && was == vault.SetAside:
		log.Info("points hold the disk from now on", "server", w.s.server, "disk", v.Device, "identity", v.Identity)
	}
}

// leaves has points go on without a volume of the head, and empties it once none holds it.
func (w *worker) leaves(v vault.Volume) {
	if v.Apart == vault.Within {
		w.s.srv.log.Warn("a disk has left: points go on without it, those there are keep it", "server", w.s.server, "disk", v.Device, "identity", v.Identity)
	}
	v.Apart = vault.SetAside
	w.volumes = append(w.volumes, v)
	w.left = append(w.left, v.ID)
}

// emptying returns the volumes of the next epoch, and of those the ones that are to be
// emptied: their disks have left, and no kept point holds them.
func (w *worker) emptying() (volumes, unheld []vault.Volume) {
	volumes = slices.Clone(w.volumes)
	for i, v := range volumes {
		if !slices.Contains(w.left, v.ID) {
			continue
		}
		gone := slices.ContainsFunc(w.head.Volumes, func(h vault.Volume) bool { return h.ID == v.ID && h.Apart == vault.Emptied })
		if gone || slices.Contains(w.head.Unheld, v.ID) {
			volumes[i].Apart = vault.Emptied
		}
		if volumes[i].Apart == vault.Emptied && !gone {
			unheld = append(unheld, v)
		}
	}
	return volumes, unheld
}

// emptyVolume makes all blocks of a volume zeros.
func emptyVolume(epoch Epoch, v vault.Volume) error {
	for first := uint64(0); first < v.Blocks(); {
		n := min(v.Blocks()-first, 1<<30)
		if err := epoch.Zero(v.ID, first, uint32(n)); err != nil {
			return err
		}
		first += n
	}
	return nil
}
