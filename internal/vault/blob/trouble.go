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
	// ErrDenied: the store knows the keys, and they may not do that. For a write it comes
	// with ErrReadOnly.
	ErrDenied = errors.New("the store denies access")
	// ErrGone: the place of the store is not there any more: its file system was unmounted,
	// its directory moved, its bucket deleted. Of objects nothing is known.
	ErrGone = errors.New("the place of the store is gone")
	// ErrClock: the store refuses requests of a machine whose clock is wrong.
	ErrClock = errors.New("the clock of this machine and that of the store differ too much")
	// ErrUntrusted: the store's certificate is not accepted.
	ErrUntrusted = errors.New("the certificate of the store is not accepted")
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
	case errors.Is(err, ErrDenied):
		return &Trouble{
			Text: "the vault's store denies access" + detail(err, ErrDenied), Away: true,
			NextStep: "allow the server's keys to list, read, create and delete objects of the bucket; all goes on by itself then",
		}
	case errors.Is(err, ErrGone):
		return &Trouble{
			Text: "the place of the vault is gone" + detail(err, ErrGone), Away: true,
			NextStep: "mount its file system again, or put the directory or bucket back where it was; all goes on by itself when it is there",
		}
	case errors.Is(err, ErrClock):
		return &Trouble{
			Text: "the clock of the server's host and that of the vault's store differ too much", Away: true,
			NextStep: "set the clock of the server's host right (or that of the store); all goes on by itself then",
		}
	case errors.Is(err, ErrUntrusted):
		return &Trouble{
			Text: "the certificate of the vault's store is not accepted" + detail(err, ErrUntrusted), Away: true,
			NextStep: "renew it, or name the file of its authority with ca-cert=FILE in --vault or in AWS_CA_BUNDLE and start the server again",
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
