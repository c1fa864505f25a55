package db

import (
	"encoding/json"
	"sync"
)

// memo remembers what JSON texts mean. A listing reads the same texts again and
// again, and to parse them is most of its cost. What it returns is shared: nobody
// may change what lies in it.
type memo[T any] struct {
	mu    sync.Mutex
	known map[string]T // guarded by mu
}

// maxMemo bounds the texts of one memo, some KiB each; when it is full, it begins
// anew.
const maxMemo = 8192

func (m *memo[T]) read(text string) (T, error) {
	m.mu.Lock()
	v, ok := m.known[text]
	m.mu.Unlock()
	if ok {
		return v, nil
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return v, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= maxMemo {
		m.known = map[string]T{}
	}
	m.known[text] = v
	return v, nil
}
