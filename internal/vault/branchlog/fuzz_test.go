package branchlog_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"lifeboat/internal/vault/branchlog"
)

// FuzzDecode gives any bytes to the decoders, also with their checksum mended so
// that what lies behind it is reached.
func FuzzDecode(f *testing.F) {
	f.Add(branchlog.PlainGroup())
	for _, p := range branchlog.Pages() {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		branchlog.DecodeAll(b)
		if len(b) == branchlog.BlockSize {
			b = bytes.Clone(b)
			branchlog.MendGroup(b)
			branchlog.DecodeAll(b)
		}
	})
}

// FuzzOpen puts any bytes behind the intact part of a log. Open refuses it as
// damaged or opens it; and then what was flushed reads as it was.
func FuzzOpen(f *testing.F) {
	base := newBase(64<<10, 1)
	dir := create(f, base.Size(), nil)
	l := open(f, dir, nil, base)
	write(f, l, []byte("flushed"), 4096)
	flush(f, l)
	one := copyDir(f, dir)
	write(f, l, bytes.Repeat([]byte("x"), 8192), 8192)
	l.Close()
	whole, err := os.ReadFile(logFiles(f, dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[3*4096:])
	f.Add(whole[3*4096 : 4*4096])
	f.Add(whole[:2*4096])
	f.Add([]byte("BGRP"))
	intact, err := os.ReadFile(logFiles(f, one)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, tail []byte) {
		dir := copyDir(t, one)
		if err := os.WriteFile(logFiles(t, dir)[0], append(bytes.Clone(intact), tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := branchlog.Open(dir, nil, base)
		if _, damaged := errors.AsType[*branchlog.CorruptError](err); damaged {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		got := make([]byte, 7)
		if _, err := l.ReadAt(got, 4096); err != nil || string(got) != "flushed" {
			t.Errorf("the flushed write reads %q, %v", got, err)
		}
	})
}
