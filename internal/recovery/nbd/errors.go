package nbd

import (
	"errors"
	"syscall"
)

// code is an error as the NBD protocol numbers it; 0 is success. It is also a
// Go error, so that validation and devices report through one path.
type code uint32

const (
	codePerm    code = 1
	codeIO      code = 5
	codeInval   code = 22
	codeNoSpace code = 28
	codeNotSup  code = 95
)

func (c code) Error() string { return syscall.Errno(c).Error() }

// codeOf maps a device's error to what the client is told.
func codeOf(err error) code {
	var c code
	switch {
	case err == nil:
		return 0
	case errors.As(err, &c):
		return c
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return codeNoSpace
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EROFS):
		return codePerm
	}
	return codeIO
}

// isTransient reports whether a failed accept is worth another try.
func isTransient(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
