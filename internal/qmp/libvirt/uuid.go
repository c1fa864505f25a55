package libvirt

import (
	"encoding/hex"
	"errors"
	"strings"

	"github.com/digitalocean/go-libvirt"
)

func parseUUID(s string) (id libvirt.UUID, err error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err == nil && copy(id[:], raw) != len(id) || len(raw) > len(id) {
		err = errors.New("not a UUID")
	}
	return id, err
}
