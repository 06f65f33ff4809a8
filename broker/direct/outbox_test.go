package direct

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
)

// desk is an outbox, worked by hand.
type desk struct {
	*testing.T
	*outbox
	ends int
}

func newDesk(t *testing.T, group string, c Config) *desk {
	d := &desk{T: t}
	d.outbox = newOutbox("t", group, c.withDefaults(), quiet, func(*outbox) { d.ends++ })
	t.Cleanup(func() { d.end() })
	return d
}

func (d *desk) member(id string) *member {
	m := &member{id: id}
	require.True(d, m.joined(d.outbox, 1))
	return m
}

func (d *desk) connected(id string) *member {
	m := d.member(id)
	d.up(m)
	return m
}

// publish puts messages with these bodies.
func (d *desk) publish(key string, bodies ...int) {
	for _, body := range bodies {
		d.Helper()
		done, err := d.tryPut(key, fmt.Append(nil, body))
		require.NoError(d, err)
		require.True(d, done, "no room")
	}
}

// given returns the bodies that m is sent now.
func (d *desk) given(m *member) []int {
	bodies := []int{}
	for {
		batch := d.take(m, nil)
		if len(batch) == 0 {
			return bodies
		}
		for _, e := range batch {
			var body int
			_, err := fmt.Sscan(string(e.data), &body)
			require.NoError(d, err)
			bodies = append(bodies, body)
		}
	}
}

// ack acks what m was sent, the first n of it.
func (d *desk) ack(m *member, n int) {
	var seqs []uint64
	for seq := range m.sent {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	d.acked(m, seqs[:n])
}

func TestLostMembersWorkGoesToOthersInOrder(t *testing.T) {
	d := newDesk(t, "g", Config{})
	a := d.connected("a")
	d.publish("k", 1, 2, 3)
	d.publish("", 4)
	d.publish("other", 5)
	require.Equal(t, []int{1, 2, 3, 4, 5}, d.given(a))
	b := d.connected("b")
	d.publish("k", 6)
	d.ack(a, 1)
	require.Empty(t, d.given(b), "keys stay while they have messages without an ack")
	d.remove(a, false)
	d.publish("k", 7)
	require.Equal(t, []int{2, 3, 4, 5, 6, 7}, d.given(b))
	d.ack(b, 6)
	require.Zero(t, d.waiting())
	require.Empty(t, d.keys)
}

func TestKeysSpreadAndStay(t *testing.T) {
	d := newDesk(t, "g", Config{})
	members := []*member{d.connected("a"), d.connected("b"), d.connected("c")}
	owner := func() map[string]string {
		owners := map[string]string{}
		for i := range 300 {
			owners[fmt.Sprint(i)] = d.memberOf(fmt.Sprint(i)).id
		}
		return owners
	}
	before := owner()
	shares := map[string]int{}
	for _, id := range before {
		shares[id]++
	}
	require.Len(t, shares, 3)
	for id, n := range shares {
		require.Greater(t, n, 60, id)
	}
	d.remove(members[2], true)
	for key, id := range owner() {
		if before[key] != "c" {
			require.Equal(t, before[key], id, "only the keys of the member that left move")
		}
	}
}

func TestWithoutKeyTheIdlestGetsIt(t *testing.T) {
	d := newDesk(t, "g", Config{})
	a, b := d.connected("a"), d.connected("b")
	d.publish("", 1, 2, 3, 4)
	require.Len(t, d.given(a), 2)
	require.Len(t, d.given(b), 2)
	d.ack(a, 2)
	d.publish("", 5, 6)
	require.Equal(t, []int{5, 6}, d.given(a))
	require.Empty(t, d.given(b))
}

func TestLateMemberFindsWork(t *testing.T) {
	d := newDesk(t, "g", Config{})
	a := d.connected("a")
	for i := range 100 {
		d.publish("", i)
	}
	require.Len(t, d.given(a), minWindow)
	b := d.connected("b")
	require.Len(t, d.given(b), minWindow)
	d.ack(a, minWindow)
	require.Len(t, d.given(a), 2*minWindow, "who is quick gets more")
}

func TestSlowMembersGetLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "g", Config{})
		a := d.connected("a")
		for i := range 200 {
			d.publish("", i)
		}
		d.given(a)
		d.ack(a, minWindow)
		require.Equal(t, 2*minWindow, a.window)
		d.given(a)
		time.Sleep(2 * slow)
		d.ack(a, 1)
		require.Equal(t, minWindow, a.window)
		d.end()
	})
}

func TestLeavingMember(t *testing.T) {
	d := newDesk(t, "g", Config{})
	a := d.connected("a")
	d.publish("k", 1)
	require.Equal(t, []int{1}, d.given(a))
	b := d.connected("b")
	d.publish("", 2, 3) // one for each
	d.leave(a)
	d.publish("k", 4)
	require.Empty(t, d.given(a), "it takes no more")
	require.Equal(t, []int{2, 3}, d.given(b), "what it was not sent goes to others, but for the key that it is at")
	d.ack(a, 1)
	d.remove(a, true)
	require.Equal(t, []int{4}, d.given(b))
}

func TestReconnectedMemberIsSentAgainWhatItDidNotAck(t *testing.T) {
	d := newDesk(t, "g", Config{})
	a := d.connected("a")
	token := a.token
	d.publish("", 1, 2, 3)
	d.given(a)
	d.ack(a, 1)
	d.publish("", 4)
	d.up(a)
	require.Equal(t, []int{2, 3, 4}, d.given(a))
	require.Equal(t, token, a.token, "it is to know what it has already")
	d.down(a)
	require.NotEqual(t, token, a.token, "what it has may be with others by now")
	d.up(a)
	require.Equal(t, []int{2, 3, 4}, d.given(a))
}

func TestNewMembersKeysWaitForIt(t *testing.T) {
	d := newDesk(t, "g", Config{})
	a, b := d.connected("a"), d.member("b")
	keys := map[string]*member{}
	for i := range 20 {
		key := fmt.Sprint(i)
		d.publish(key, i)
		keys[key] = d.keys[key].member
	}
	require.Contains(t, keys, "0")
	na, nb := 0, 0
	for _, m := range keys {
		if m == a {
			na++
		} else {
			nb++
		}
	}
	require.NotZero(t, nb, "a member that is being connected has keys already")
	require.Len(t, d.given(a), na)
	d.down(b)
	require.Len(t, d.given(a), nb, "but not when that fails")
}

func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "g", Config{Grace: time.Minute, Buffer: 3})
		a := d.connected("a")
		d.publish("k", 1)
		d.publish("", 2)
		d.given(a)
		d.remove(a, false)
		require.Zero(t, d.ends)
		d.publish("k", 3)
		time.Sleep(30 * time.Second)
		b := d.connected("b")
		require.ElementsMatch(t, []int{1, 2, 3}, d.given(b), "a group that comes back gets what was kept")
		time.Sleep(time.Hour)
		require.Equal(t, 3, d.waiting())

		d.down(b)
		waits := make(chan error)
		go func() { waits <- d.put(t.Context(), "", []byte("4")) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, <-waits)
		require.Equal(t, 1, d.waiting(), "what was kept too long is dropped, and makes room")
		require.Zero(t, d.ends, "somebody is registered still")
		d.remove(b, false)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, d.ends)
		_, err := d.tryPut("", nil)
		require.ErrorIs(t, err, errGone)
	})
}

func TestLastMemberThatLeavesEndsTheGroup(t *testing.T) {
	d := newDesk(t, "g", Config{})
	a := d.connected("a")
	d.publish("", 1)
	d.given(a)
	d.ack(a, 1)
	d.remove(a, true)
	require.Equal(t, 1, d.ends)

	d = newDesk(t, "g", Config{})
	a = d.connected("a")
	d.publish("", 1)
	d.remove(a, true)
	require.Zero(t, d.ends, "it has handed something back")
	require.Equal(t, []int{1}, d.given(d.connected("b")))
}

func TestSingleSubscriberTakesItsMessagesWithIt(t *testing.T) {
	for _, left := range []bool{true, false} {
		d := newDesk(t, "", Config{})
		a := d.connected("a")
		d.publish("", 1, 2)
		d.remove(a, left)
		require.Equal(t, 1, d.ends)
		require.Zero(t, d.waiting())
		require.NoError(t, d.wait(t.Context()))
		require.False(t, (&member{}).joined(d.outbox, 1))
	}
}

func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "g", Config{Buffer: 2, BufferSize: 10})
		a := d.connected("a")
		fits := func(size int) bool {
			done, err := d.tryPut("", make([]byte, size))
			require.NoError(t, err)
			return done
		}
		require.True(t, fits(5))
		require.False(t, fits(6), "bytes")
		require.True(t, fits(5))
		require.False(t, fits(0), "messages")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, d.put(ctx, "", nil), context.DeadlineExceeded)

		put := make(chan error)
		go func() { put <- d.put(t.Context(), "", make([]byte, 1000)) }()
		synctest.Wait()
		require.Len(t, d.take(a, nil), 2)
		d.ack(a, 1)
		synctest.Wait()
		require.Equal(t, 1, d.waiting(), "a message that is larger than the room has it for itself")
		d.ack(a, 1)
		require.NoError(t, <-put)

		go func() { put <- d.put(t.Context(), "", []byte("x")) }()
		synctest.Wait()
		d.remove(a, true)
		d.end()
		require.ErrorIs(t, <-put, errGone)
	})
}

func TestSealedOutboxTakesNothing(t *testing.T) {
	d := newDesk(t, "g", Config{})
	d.seal()
	_, err := d.tryPut("", nil)
	require.ErrorIs(t, err, broker.ErrClosed)
}

func TestWaitIsForWhatWasPutBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "g", Config{})
		a := d.connected("a")
		require.NoError(t, d.wait(t.Context()))
		d.publish("", 1, 2)
		waits := make(chan error, 1)
		go func() { waits <- d.wait(t.Context()) }()
		synctest.Wait()
		d.publish("", 3)
		d.given(a)
		d.ack(a, 1)
		synctest.Wait()
		require.Empty(t, waits)
		d.ack(a, 1)
		require.NoError(t, <-waits)
		d.end()
	})
}

func TestMessageThatCannotBeSentIsDropped(t *testing.T) {
	d := newDesk(t, "g", Config{})
	a := d.connected("a")
	d.publish("k", 1, 2)
	batch := d.take(a, nil)
	require.Len(t, batch, 2)
	d.drop(a, batch[0])
	d.drop(a, batch[0])
	require.Equal(t, 1, d.waiting())
}

func TestBatchesAreBounded(t *testing.T) {
	d := newDesk(t, "g", Config{})
	a := d.connected("a")
	for _, size := range []int{maxBatch / 2, maxBatch / 2, 1, maxBatch * 2, 1} {
		_, err := d.tryPut("", make([]byte, size))
		require.NoError(t, err)
	}
	var sizes []int
	for batch := d.take(a, nil); len(batch) > 0; batch = d.take(a, nil) {
		sizes = append(sizes, len(batch))
	}
	require.Equal(t, []int{2, 1, 1, 1}, sizes)
}
