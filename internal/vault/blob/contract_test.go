package blob_test

import (
	"path/filepath"
	"testing"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
)

func TestDirContract(t *testing.T) {
	blobtest.Contract(t, func(t *testing.T) blob.Store {
		d, err := blob.CreateDir(filepath.Join(t.TempDir(), "store"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	})
}

func TestMemContract(t *testing.T) {
	blobtest.Contract(t, func(*testing.T) blob.Store { return blobtest.NewMem() })
}
