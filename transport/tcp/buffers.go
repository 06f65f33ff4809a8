package tcp

import (
	"math/bits"
	"sync"
)

const (
	minBufferBits = 12 // 4 KiB
	maxBufferBits = 23 // 8 MiB: larger ones are left to the garbage collector
)

// buffer is bytes that connections share one after the other. Its size is a power of two up to the largest class.
type buffer struct{ data []byte }

// buffers holds the unused ones by size; the garbage collector empties it.
var buffers [maxBufferBits + 1]sync.Pool

// getBuffer returns an empty buffer with room for n bytes.
func getBuffer(n int) *buffer {
	class := max(bits.Len(uint(max(n, 1)-1)), minBufferBits)
	if class > maxBufferBits {
		return &buffer{make([]byte, 0, n)}
	}
	if b, ok := buffers[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 0, 1<<class)}
}

// Release gives b to others: nobody may hold a part of it any more.
func (b *buffer) Release() {
	class := bits.Len(uint(cap(b.data))) - 1
	if class < minBufferBits || class > maxBufferBits {
		return
	}
	b.data = b.data[:0]
	buffers[class].Put(b)
}

// grown returns b, or a larger buffer in its place, with room for n more bytes.
func (b *buffer) grown(n int) *buffer {
	if len(b.data)+n <= cap(b.data) {
		return b
	}
	to := getBuffer(max(len(b.data)+n, 2*cap(b.data)))
	to.data = append(to.data, b.data...)
	b.Release()
	return to
}

// shrunk returns b, or a small buffer in its place if it is larger than keep. b is empty.
func (b *buffer) shrunk(keep int) *buffer {
	if cap(b.data) <= keep {
		return b
	}
	b.Release()
	return getBuffer(0)
}
