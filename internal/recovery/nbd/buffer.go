package nbd

import (
	"math/bits"
	"sync"
)

// Payload buffers come in powers of two from minBufferLen to maxPayload and are
// used again, so that a steady stream of requests allocates nothing.
const minBufferLen = 4 << 10

// buffer is a pooled payload buffer; bytes is as long as was asked for.
type buffer struct {
	bytes []byte
	class int
}

var bufferPools [16]sync.Pool

func bufferClass(n int) int {
	if n <= minBufferLen {
		return 0
	}
	return bits.Len(uint(n-1)) - bits.Len(uint(minBufferLen-1))
}

// bufferCost is what a buffer for n bytes takes of a memory budget.
func bufferCost(n int) int64 { return minBufferLen << bufferClass(n) }

// getBuffer returns a buffer of n bytes, at most maxPayload, with any content.
func getBuffer(n int) *buffer {
	class := bufferClass(n)
	b, _ := bufferPools[class].Get().(*buffer)
	if b == nil {
		b = &buffer{bytes: make([]byte, minBufferLen<<class), class: class}
	}
	b.bytes = b.bytes[:n]
	return b
}

func putBuffer(b *buffer) {
	b.bytes = b.bytes[:cap(b.bytes)]
	bufferPools[b.class].Put(b)
}
