package wire

import (
	"math/bits"
	"sync"
)

// Buffer is a reused byte slice. Who holds it owns it, until Release; nothing of B may be kept after that.
type Buffer struct {
	B     []byte
	owner Owner // of B; nil: B is one of the classes
}

// Owner is who lent the memory of a buffer.
type Owner interface{ Release() }

var borrowed = sync.Pool{New: func() any { return new(Buffer) }}

// BorrowBuffer returns a buffer that holds b itself, until Release gives it back to its owner.
func BorrowBuffer(b []byte, owner Owner) *Buffer {
	buf := borrowed.Get().(*Buffer)
	buf.B, buf.owner = b, owner
	return buf
}

const (
	smallestClass = 8  // 256 bytes
	largestClass  = 23 // 8 MiB; what is larger is left to the garbage collector
)

var classes [largestClass + 1]sync.Pool

// GetBuffer returns an empty buffer with room for at least n bytes.
func GetBuffer(n int) *Buffer {
	c := max(bits.Len(uint(max(n, 1)-1)), smallestClass)
	if c > largestClass {
		return &Buffer{B: make([]byte, 0, n)}
	}
	if b, ok := classes[c].Get().(*Buffer); ok {
		return b
	}
	return &Buffer{B: make([]byte, 0, 1<<c)}
}

// CopyBuffer returns a buffer that holds a copy of b.
func CopyBuffer(b []byte) *Buffer {
	buf := GetBuffer(len(b))
	buf.B = append(buf.B, b...)
	return buf
}

// Release gives the buffer back. A nil buffer is fine.
func (b *Buffer) Release() {
	if b != nil && b.owner != nil {
		b.owner.Release()
		*b = Buffer{}
		borrowed.Put(b)
		return
	}
	if b == nil || cap(b.B) < 1<<smallestClass {
		return
	}
	c := bits.Len(uint(cap(b.B))) - 1 // the class that it has room for, whatever it grew to
	if c > largestClass {
		return
	}
	b.B = b.B[:0]
	classes[c].Put(b)
}
