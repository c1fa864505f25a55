package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"lifeboat/internal/vault/blob"
)

// Mem is a store in memory. It keeps the contract but for surviving anything.
type Mem struct {
	mu      sync.Mutex
	objects map[string][]byte
}

var _ blob.Store = (*Mem)(nil)

// NewMem returns an empty store.
func NewMem() *Mem { return &Mem{objects: map[string][]byte{}} }

// Clone returns a copy that goes its own way.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Mem{objects: maps.Clone(m.objects)}
}

// Names returns the names of all objects, sorted.
func (m *Mem) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.objects))
}

// Bytes returns a copy of an object, which must exist.
func (m *Mem) Bytes(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.objects[name])
}

// Replace does what no store may: it changes an object. Nil removes it.
func (m *Mem) Replace(name string, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b == nil {
		delete(m.objects, name)
		return
	}
	m.objects[name] = b
}

// PutIfAbsent implements blob.Store.
func (m *Mem) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	if err := check(ctx, name); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[name]; ok {
		return fmt.Errorf("put %s: %w", name, blob.ErrExists)
	}
	m.objects[name] = bytes.Join(parts, nil)
	return nil
}

// ReadAt implements blob.Store.
func (m *Mem) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	b, err := m.object(ctx, name)
	if err != nil {
		return 0, err
	}
	if off > int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size implements blob.Store.
func (m *Mem) Size(ctx context.Context, name string) (int64, error) {
	b, err := m.object(ctx, name)
	return int64(len(b)), err
}

func (m *Mem) object(ctx context.Context, name string) ([]byte, error) {
	if err := check(ctx, name); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.objects[name]
	if !ok {
		return nil, fmt.Errorf("read %s: %w", name, blob.ErrAbsent)
	}
	return b, nil
}

// List implements blob.Store.
func (m *Mem) List(ctx context.Context, folder string) ([]string, error) {
	if folder != "" {
		if err := blob.CheckName(strings.TrimSuffix(folder, "/")); err != nil || !strings.HasSuffix(folder, "/") {
			return nil, fmt.Errorf("list %q: not a folder name", folder)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list %s: %w", folder, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	found := map[string]bool{}
	for name := range m.objects {
		if rest, ok := strings.CutPrefix(name, folder); ok {
			if i := strings.IndexByte(rest, '/'); i >= 0 {
				rest = rest[:i+1]
			}
			found[folder+rest] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// Delete implements blob.Store.
func (m *Mem) Delete(ctx context.Context, name string) error {
	if _, err := m.object(ctx, name); err != nil {
		return err
	}
	m.Replace(name, nil)
	return nil
}

func check(ctx context.Context, name string) error {
	if err := blob.CheckName(name); err != nil {
		return err
	}
	return ctx.Err()
}
