package vault

import (
	"fmt"
	"strconv"
	"strings"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/segment"
)

// Where objects lie:
//
//	root/<number>.root                                     the vault itself; the highest number counts
//	keys/<server>/<number>.key                             a server's wrapped data key; likewise
//	servers/<server>/branches/<branch>/<number>.manifest   the commits of a branch
//	servers/<server>/branches/<branch>/<number>.checkpoint the branch's state at that commit (derived)
//	servers/<server>/segments/<id>.segment                 frames
//	servers/<server>/maps/<level>-<hash>.run               merged extents of many segments (derived)
//	servers/<server>/records/<number>.record               what the tables know of the server; likewise
//	servers/<server>/traces/<number>.trace                 what its machine read when it booted (derived); likewise
//	owners/<number>.owner                                  whose vault it is; likewise
//	clocks/<number>.clock                                  the vault's time; likewise
//	records/<number>.record                                what the tables know besides servers; likewise
//
// Numbers are 16 hexadecimal digits, so that they sort.
const (
	rootFolder   = "root/"
	keysFolder   = "keys/"
	ownersFolder = "owners/"
	clocksFolder = "clocks/"
	ownRecords   = "records/" // of the vault as a whole
)

func rootName(number uint64) string { return fmt.Sprintf("%s%016x.root", rootFolder, number) }

func keyFolder(server drs.SourceServerID) string { return keysFolder + string(server) + "/" }

func keyName(server drs.SourceServerID, number uint64) string {
	return fmt.Sprintf("%s%016x.key", keyFolder(server), number)
}

func serverFolder(server drs.SourceServerID) string { return "servers/" + string(server) + "/" }

func branchesFolder(server drs.SourceServerID) string { return serverFolder(server) + "branches/" }

func branchFolder(server drs.SourceServerID, branch string) string {
	return branchesFolder(server) + branch + "/"
}

func manifestName(server drs.SourceServerID, branch string, number uint64) string {
	return fmt.Sprintf("%s%016x.manifest", branchFolder(server, branch), number)
}

func checkpointName(server drs.SourceServerID, branch string, number uint64) string {
	return fmt.Sprintf("%s%016x.checkpoint", branchFolder(server, branch), number)
}

func segmentName(server drs.SourceServerID, id segment.ID) string {
	return serverFolder(server) + "segments/" + id.String() + ".segment"
}

func runName(server drs.SourceServerID, level int, covers [32]byte) string {
	return fmt.Sprintf("%smaps/%d-%x.run", serverFolder(server), level, covers[:16])
}

func recordsFolder(server drs.SourceServerID) string { return serverFolder(server) + "records/" }

func tracesFolder(server drs.SourceServerID) string { return serverFolder(server) + "traces/" }

func ownerName(number uint64) string { return fmt.Sprintf("%s%016x.owner", ownersFolder, number) }

func clockName(number uint64) string { return fmt.Sprintf("%s%016x.clock", clocksFolder, number) }

// numbered picks the numbers of the objects in a folder that end in suffix,
// ascending. Other names are not ours to judge.
func numbered(names []string, suffix string) []uint64 {
	var out []uint64
	for _, name := range names {
		base := name[strings.LastIndexByte(name, '/')+1:]
		digits, ok := strings.CutSuffix(base, suffix)
		if !ok || len(digits) != 16 {
			continue
		}
		if n, err := strconv.ParseUint(digits, 16, 64); err == nil && n > 0 {
			out = append(out, n)
		}
	}
	return out
}

// folders returns the last parts of the folder names among names.
func folders(names []string) []string {
	var out []string
	for _, name := range names {
		if dir, ok := strings.CutSuffix(name, "/"); ok {
			out = append(out, dir[strings.LastIndexByte(dir, '/')+1:])
		}
	}
	return out
}

func checkServer(server drs.SourceServerID) error {
	_, err := drs.ParseSourceServerID(string(server))
	return err
}

func checkBranch(branch string) error {
	ok := len(branch) > 0 && len(branch) <= 64
	for _, c := range []byte(branch) {
		ok = ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("branch name %q: want 1 to 64 letters, digits or dashes", branch)
	}
	return nil
}
