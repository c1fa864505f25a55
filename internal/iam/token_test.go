package iam

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func tokens(t *testing.T, master []byte, now time.Time) *InstallTokens {
	t.Helper()
	issuer, err := NewInstallTokens(master, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func TestInstallToken(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	token := tokens(t, master, now).Issue(account, InstallTokenLife).Reveal()
	if again := tokens(t, master, now).Issue(account, InstallTokenLife).Reveal(); again == token {
		t.Error("two tokens are equal")
	}
	cases := []struct {
		name, token string
		master      []byte
		at          time.Time
		want        error
	}{
		{"fresh", token, master, now, nil},
		{"with a line break", " " + token + "\n", master, now, nil},
		{"a second before its end", token, master, now.Add(InstallTokenLife - time.Second), nil},
		{"at its end", token, master, now.Add(InstallTokenLife), ErrTokenExpired},
		{"of another server", token, bytes.Repeat([]byte("x"), 32), now, ErrTokenForeign},
		{"empty", "", master, now, ErrTokenMalformed},
		{"a word", "hello", master, now, ErrTokenMalformed},
		{"another format", "lbt1" + token[4:], master, now, ErrTokenMalformed},
		{"cut", token[:40], master, now, ErrTokenMalformed},
		{"not base64", token[:20] + "!" + token[21:], master, now, ErrTokenMalformed},
		{"very long", "lbt2." + strings.Repeat("A", 10_000), master, now, ErrTokenMalformed},
	}
	for _, c := range cases {
		got, err := tokens(t, c.master, c.at).Check(c.token)
		if !errors.Is(err, c.want) || err == nil && got != account {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
	// No changed character may pass.
	for i := len(tokenPrefix); i < len(token); i++ {
		changed := token[:i] + string(rune('A'+(token[i]+1)%26)) + token[i+1:]
		if changed == token {
			continue
		}
		if got, err := tokens(t, master, now).Check(changed); err == nil {
			t.Fatalf("token with character %d changed passed for %v", i, got)
		}
	}
}

func FuzzInstallToken(f *testing.F) {
	issuer, err := NewInstallTokens(master, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("lbt2.")
	f.Add("lbt2." + strings.Repeat("A", 80))
	f.Add(issuer.Issue(account, -time.Hour).Reveal())
	f.Fuzz(func(t *testing.T, token string) {
		if got, err := issuer.Check(token); err == nil {
			t.Errorf("forged for %v", got)
		}
	})
}
