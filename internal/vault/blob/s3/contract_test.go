package s3_test

import (
	"testing"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
	"lifeboat/internal/vault/blob/s3"
	"lifeboat/internal/vault/blob/s3/s3test"
)

func TestContract(t *testing.T) {
	server := s3test.Start(t)
	blobtest.Contract(t, func(*testing.T) blob.Store { return server.Bucket() })
}

func TestContractUnderAPrefixOverTLS(t *testing.T) {
	server := s3test.StartTLS(t)
	blobtest.Contract(t, func(t *testing.T) blob.Store {
		l := server.Location()
		l.Prefix = "some/where/"
		s, err := s3.Open(t.Context(), l, s3test.Patient)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	})
}
