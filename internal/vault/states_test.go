package vault_test

import (
	"fmt"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// TestIdleBranchesLetGo: the lists of many servers do not fit, and each goes on as if they
// did, its writer included.
func TestIdleBranchesLetGo(t *testing.T) {
	const servers, epochs, limit = 12, 20, 16 << 10
	opt := vault.Options{StateBytes: limit}.Small()
	v := newVault(t, newStore(t), newKey(t), opt)
	var writers []*vault.Writer
	ids := make([]drs.SourceServerID, servers)
	for i := range servers {
		ids[i] = drs.SourceServerID(fmt.Sprintf("s-%017x", i))
		if err := v.CreateServer(ctxOf, ids[i]); err != nil {
			t.Fatal(err)
		}
		writers = append(writers, must(v.Writer(ctxOf, ids[i], vault.MainBranch))(t))
	}
	for n := range epochs {
		for i, w := range writers {
			e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: 4096}}))(t)
			if err := e.Append(frame(1, blocks(uint64(n*100+i), 1), vault.CodecRaw, vault.Extent{Count: 1})); err != nil {
				t.Fatal(err)
			}
			p := point(n*100 + i)
			p.SourceServer = ids[i]
			must(e.Commit(ctxOf, p))(t)
		}
	}
	if used := v.StateBytes(); used > limit {
		t.Errorf("lists of %d bytes are kept, want at most %d", used, limit)
	}
	for i, id := range ids {
		if points := must(v.Points(ctxOf, id))(t); len(points) != epochs {
			t.Errorf("%s: %d points", id, len(points))
		}
		img := must(v.OpenHead(ctxOf, id, vault.MainBranch))(t)
		(&disk{4096, blocks(uint64((epochs-1)*100+i), 1)}).check(t, img, 1)
		img.Close()
	}
}
