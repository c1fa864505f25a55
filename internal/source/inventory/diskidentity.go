package inventory

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxIdentity bounds an identity, in bytes.
const maxIdentity = 256

// DiskIdentities tells what each disk is, whatever it is called now: what its maker
// wrote on it, or what was written to it when it was partitioned or formatted. Empty
// where nothing tells it from the other disks, such as two copies of one template;
// also where it cannot be read, which is not this function's to report.
func DiskIdentities(devices []string) []string { return Collector{}.diskIdentities(devices) }

// DiskClaims lists all that tells what a disk is, the best first; other disks may
// claim some of it, too.
func (c Collector) DiskClaims(device string) []string {
	var claims []string
	for _, claim := range append(c.hardwareIdentities(device), contentIdentities(device)...) {
		if len(claim) <= maxIdentity {
			claims = append(claims, claim)
		}
	}
	return claims
}

func (c Collector) diskIdentities(devices []string) []string {
	candidates := make([][]string, len(devices))
	times := map[string]int{}
	for i, device := range devices {
		candidates[i] = c.DiskClaims(device)
		for _, identity := range candidates[i] {
			times[identity]++
		}
	}
	identities := make([]string, len(devices))
	for i := range devices {
		for _, identity := range candidates[i] {
			if times[identity] == 1 {
				identities[i] = identity
				break
			}
		}
	}
	return identities
}

// hardwareIdentities reads what the kernel knows of a block device of its own name.
func (c Collector) hardwareIdentities(device string) (found []string) {
	real, err := filepath.EvalSymlinks(device)
	if err != nil {
		return nil
	}
	dir := "sys/class/block/" + filepath.Base(real) + "/"
	for _, at := range [][2]string{
		{"wwid:", "wwid"}, {"wwid:", "device/wwid"}, {"serial:", "serial"}, {"serial:", "device/serial"},
	} {
		if text := strings.Join(strings.Fields(c.line(dir+at[1])), " "); text != "" {
			found = append(found, at[0]+text)
		}
	}
	return found
}

// contentIdentities reads the identities of partition table and filesystem, from the
// first sectors.
func contentIdentities(device string) (found []string) {
	f, err := os.Open(device)
	if err != nil {
		return nil
	}
	defer f.Close()
	begin := make([]byte, 8192)
	if n, _ := io.ReadFull(f, begin); n < 4096 { // what is too short to read has no table
		return nil
	}
	le := binary.LittleEndian
	add := func(kind string, id []byte) {
		if !bytes.Equal(id, make([]byte, len(id))) {
			found = append(found, kind+hex.EncodeToString(id))
		}
	}
	for _, sector := range []int{512, 4096} {
		if header := begin[sector:]; string(header[:8]) == "EFI PART" {
			add("gpt:", header[56:72])
		}
	}
	switch {
	case len(found) > 0: // a table of the older kind stands before it for show
	case string(begin[:4]) == "XFSB":
		add("xfs:", begin[32:48])
	case le.Uint16(begin[1024+0x38:]) == 0xef53:
		add("ext:", begin[1024+0x68:1024+0x78])
	case le.Uint16(begin[510:]) == 0xaa55 && le.Uint32(begin[440:]) != 0:
		found = append(found, fmt.Sprintf("mbr:%08x", le.Uint32(begin[440:])))
	}
	return found
}
