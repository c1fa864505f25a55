package envelope

import (
	"bytes"
	"errors"
	"testing"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/seal"
)

func header(c seal.Cipher) Header {
	h := Header{Kind: Manifest, Cipher: c, Number: 42, Server: "s-0123456789abcdef0", Branch: "main", Attached: 5}
	h.Link[0] = 0xcc
	return h
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []seal.Cipher{seal.None, seal.AESGCM} {
		stored, hash, err := Encode(header(c), seal.Key{1}, []byte("the body"))
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(stored)) != Size(c, len("the body")) {
			t.Errorf("%d bytes, Size says %d", len(stored), Size(c, len("the body")))
		}
		env, err := Decode("x", Manifest, append(stored, "attached"...), seal.Key{1})
		if err != nil {
			t.Fatal(err)
		}
		want := header(c)
		want.Salt = env.Salt
		if env.Header != want || string(env.Body) != "the body" || env.Hash != hash || env.Length != int64(len(stored)) {
			t.Errorf("got %+v", env)
		}
		var corrupt *blob.CorruptError
		if _, err := Decode("x", Checkpoint, stored, seal.Key{1}); !errors.As(err, &corrupt) {
			t.Errorf("another kind: got %v, want a CorruptError", err)
		}
		if _, err := Decode("x", Manifest, stored, seal.Key{2}); c != seal.None && !errors.As(err, &corrupt) {
			t.Errorf("another key: got %v, want a CorruptError", err)
		}
		newer := bytes.Clone(stored)
		newer[8]++
		if _, err := Decode("x", Manifest, newer, seal.Key{1}); !errors.Is(err, blob.ErrNewerFormat) {
			t.Errorf("newer version: got %v", err)
		}
	}
}

func TestNamesTooLongAreRefused(t *testing.T) {
	for _, h := range []Header{{Kind: Root, Server: string(make([]byte, 25))}, {Kind: Root, Branch: string(make([]byte, 65))}} {
		if _, _, err := Encode(h, seal.Key{}, nil); err == nil {
			t.Errorf("Encode(%+v): want an error", h)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range []seal.Cipher{seal.None, seal.AESGCM} {
		stored, _, _ := Encode(header(c), seal.Key{}, []byte("the body"))
		f.Add(stored)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		env, err := Decode("x", Manifest, b, seal.Key{})
		var corrupt *blob.CorruptError
		if err != nil {
			if !errors.As(err, &corrupt) && !errors.Is(err, blob.ErrNewerFormat) {
				t.Fatalf("%v: want a CorruptError", err)
			}
			return
		}
		again, _, err := encode(env.Header, seal.Key{}, env.Salt, env.Body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode("x", Manifest, again, seal.Key{}); err != nil {
			t.Fatalf("what was decoded cannot be decoded again: %v", err)
		}
	})
}
