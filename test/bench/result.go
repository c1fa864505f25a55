package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// results is what is kept; fields are only ever added.
type results struct {
	At       time.Time         `json:"at"`
	Version  string            `json:"version"`
	CPUs     int               `json:"cpus"`
	Go       string            `json:"go"`
	Kernel   string            `json:"kernel,omitempty"`
	Peers    map[string]string `json:"peers,omitempty"` // versions
	Measures []measurement     `json:"measures"`
}

// measurement is one figure of ours, with the peer's beside it where there is one.
// Figures are medians where they come from several runs.
type measurement struct {
	Row  string    `json:"row,omitempty"`
	At   time.Time `json:"at,omitzero"`
	Name string    `json:"name"`
	Unit string    `json:"unit"`
	Ours float64   `json:"ours"`
	Runs int       `json:"runs,omitempty"` // how many Ours is the median of; 0: not a median
	// Peer is what the figure is held against, and PeerValue that one's.
	Peer      string  `json:"peer,omitempty"`
	PeerValue float64 `json:"peerValue,omitempty"`
	// Ratio is Ours to PeerValue. Reach is what it, or without a peer Ours, is meant
	// to be: at most, or with AtLeast at least; 0 when nothing is meant.
	Ratio   float64 `json:"ratio,omitempty"`
	Reach   float64 `json:"reach,omitempty"`
	AtLeast bool    `json:"atLeast,omitempty"`
	Reached *bool   `json:"reached,omitempty"`
	// Why says why there is no figure.
	Why string `json:"why,omitempty"`
	// Note tells what to know beside the figure.
	Note string `json:"note,omitempty"`
}

// settle computes what follows from the figures.
func (m *measurement) settle(row string, at time.Time) {
	m.Row, m.At = row, at
	if m.Why != "" {
		return
	}
	judged := m.Ours
	if m.Peer != "" && m.PeerValue > 0 {
		m.Ratio = m.Ours / m.PeerValue
		judged = m.Ratio
	}
	if m.Reach > 0 {
		reached := judged <= m.Reach
		if m.AtLeast {
			reached = judged >= m.Reach
		}
		m.Reached = &reached
	}
}

// line is the measurement as one line of text.
func (m measurement) line() string {
	if m.Why != "" {
		return fmt.Sprintf("%-66s not measured: %s", m.Name, m.Why)
	}
	s := fmt.Sprintf("%-66s %s", m.Name, figure(m.Ours, m.Unit))
	if m.Peer != "" {
		s += fmt.Sprintf("   %s %s: %s", m.Peer, figure(m.PeerValue, m.Unit), ratio(m.Ratio))
	}
	if m.Reached != nil {
		s += "   " + m.reach() + ": " + m.verdict()
	}
	if m.Note != "" {
		s += "   (" + m.Note + ")"
	}
	return s
}

func (m measurement) verdict() string {
	switch {
	case m.Reached == nil:
		return ""
	case *m.Reached:
		return "reached"
	}
	return "NOT reached"
}

// reach is what the figure is meant to be.
func (m measurement) reach() string {
	if m.Reach == 0 {
		return ""
	}
	bound := "at most "
	if m.AtLeast {
		bound = "at least "
	}
	if m.Peer != "" {
		return bound + ratio(m.Reach)
	}
	return bound + figure(m.Reach, m.Unit)
}

func ratio(r float64) string {
	if r > 0 && r < 0.095 {
		return fmt.Sprintf("%.3fx", r)
	}
	return fmt.Sprintf("%.2fx", r)
}

func figure(v float64, unit string) string {
	text := fmt.Sprintf("%.2f", v)
	if v >= 100 {
		text = fmt.Sprintf("%.0f", v)
	}
	if strings.Contains(text, ".") {
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	return text + " " + unit
}

// readResults reads what is kept; nothing, when nothing is.
func readResults(path string) (r results, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read the kept results %s: %w", path, err)
	}
	return r, nil
}

// keep adds the earlier figures of rows that were not measured now, and brings
// all into the order of the table.
func (r *results) keep(earlier results, measured []row) {
	for _, m := range earlier.Measures {
		now := slices.ContainsFunc(measured, func(x row) bool { return x.name == m.Row })
		known := slices.ContainsFunc(rows, func(x row) bool { return x.name == m.Row })
		if known && !now {
			r.Measures = append(r.Measures, m)
		}
	}
	place := func(m measurement) int { return slices.IndexFunc(rows, func(x row) bool { return x.name == m.Row }) }
	slices.SortStableFunc(r.Measures, func(a, b measurement) int { return place(a) - place(b) })
}

func (r *results) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, append(data, '\n'), 0o644))
}
