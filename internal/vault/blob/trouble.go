package blob

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"unicode/utf8"
)

var (
	// ErrUnreachable: the store did not answer, or said that it is unwell. What it
	// holds is not in question; try again.
	ErrUnreachable = errors.New("the store cannot be reached or is overloaded: it is asked again with the next operation")
	// ErrCredentials: the store does not accept the keys, or there are none.
	ErrCredentials = errors.New("credentials for the store")
)

// Trouble is what keeps a store from doing its work until somebody mends it.
type Trouble struct {
	Text     string // what is wrong: one plain sentence without its end
	NextStep string // what a person can do
	Away     bool   // nothing can be read either
}

// TroubleOf tells what an error of a store means for people; nil: it speaks of an
// object, of its caller's end, or of nothing that is known.
func TroubleOf(err error) *Trouble {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, ErrNoSpace), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &Trouble{Text: "the vault is full", NextStep: "free or add space where the vault lies; replication then goes on by itself"}
	case errors.Is(err, ErrReadOnly), errors.Is(err, syscall.EROFS):
		return &Trouble{
			Text:     "the vault is read-only" + detail(err, ErrReadOnly),
			NextStep: "make its place writable again (mount, owner and mode of the directory; policy and keys of the bucket); replication then goes on by itself",
		}
	case errors.Is(err, ErrCredentials):
		return &Trouble{
			Text: "the vault's store does not accept the server's keys" + detail(err, ErrCredentials), Away: true,
			NextStep: "renew AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile, and start the server again",
		}
	case errors.Is(err, ErrUnreachable):
		return &Trouble{
			Text: "the vault's store cannot be reached or is overloaded" + detail(err, ErrUnreachable), Away: true,
			NextStep: "look whether the store runs and this host reaches it; all goes on by itself when it answers",
		}
	case errors.Is(err, syscall.EIO):
		return &Trouble{
			Text: "the disk of the vault reports errors" + detail(err, syscall.EIO), Away: true,
			NextStep: "look into the kernel's log of the server's host (dmesg), and replace the disk if it fails; `lifeboat vault verify` tells what is hurt",
		}
	}
	return nil
}

// detail is what an error says after its kind, short and in brackets.
func detail(err, kind error) string {
	_, after, _ := strings.Cut(err.Error(), kind.Error())
	if after = Short(strings.Trim(after, " :()"), 140); after != "" {
		return " (" + after + ")"
	}
	return ""
}

// Short is the first line of a text, at most n bytes of it and valid UTF-8: answers of
// stores can be whole pages.
func Short(text string, n int) string {
	text, _, _ = strings.Cut(strings.TrimSpace(strings.ToValidUTF8(text, "?")), "\n")
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}
