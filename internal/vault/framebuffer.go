package vault

import "sync"

// frameBytes is the raw size of a full frame.
const frameBytes = FrameBlocks * BlockSize

// frameBuffers holds the room of full frames that were dropped from the cache: who
// reads a disk from end to end would make 64 KiB of garbage per frame otherwise.
var frameBuffers sync.Pool // of *[frameBytes]byte

// frameRoom returns an empty slice with room for n raw bytes of a frame.
func frameRoom(n int) []byte {
	if n != frameBytes { // a small one gets what it needs: the cache holds more of them
		return make([]byte, 0, n)
	}
	if room, ok := frameBuffers.Get().(*[frameBytes]byte); ok {
		return room[:0]
	}
	return make([]byte, 0, n)
}

// freeFrame takes back the bytes of a frame that nobody reads any more.
func freeFrame(raw []byte) {
	if raw = raw[:cap(raw)]; len(raw) == frameBytes {
		frameBuffers.Put((*[frameBytes]byte)(raw))
	}
}
