package ingest

import (
	"lifeboat/internal/replication"
	"lifeboat/internal/vault"
)

// place is where a disk goes in the vault.
type place struct {
	volume vault.Volume // as at the head, or new
	known  bool
}

// assign gives each disk its volume: the one of its identity; else the one that had
// its name, if that is no other disk's; else a new one. So disks may change their
// names. A volume of a time without identities is known by its name alone, and so
// is a disk that nothing tells from others. A disk of another identity under the
// name of one that is gone is taken for its replacement: it is compared with the
// volume and what differs is sent. A volume that was emptied is no disk's any more.
func assign(volumes []vault.Volume, disks []replication.Disk) []place {
	next := vault.VolumeID(0)
	for _, v := range volumes {
		next = max(next, v.ID+1)
	}
	places := make([]place, len(disks))
	taken := map[vault.VolumeID]bool{}
	match := func(same func(vault.Volume, replication.Disk) bool) {
		for i, d := range disks {
			for _, v := range volumes {
				if !places[i].known && !taken[v.ID] && v.Apart != vault.Emptied && same(v, d) {
					places[i], taken[v.ID] = place{v, true}, true
				}
			}
		}
	}
	match(func(v vault.Volume, d replication.Disk) bool { return v.Identity != "" && v.Identity == d.Identity })
	match(func(v vault.Volume, d replication.Disk) bool { return v.Device == d.Device })
	for i, d := range disks {
		if !places[i].known {
			places[i].volume = vault.Volume{ID: next, Device: d.Device}
			next++
		}
	}
	return places
}
