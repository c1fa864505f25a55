package s3

import (
	"context"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
)

// list returns what lies directly in a folder, sorted. A listing that breaks off goes
// on behind the last name it gave.
func (s *Store) list(ctx context.Context, folder string) ([]string, error) {
	var names []string
	after := ""
	err := s.retry(ctx, func(ctx context.Context, moved func()) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the requests ahead of us
		for object := range s.client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + folder, StartAfter: after}) {
			if object.Err != nil {
				return kind(object.Err)
			}
			moved()
			after = object.Key
			name := strings.TrimPrefix(object.Key, s.prefix)
			if rest := strings.TrimPrefix(name, folder); rest != "" && rest[0] != '.' {
				names = append(names, name)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // keys come before folders on each page
	return slices.Compact(names), nil
}
