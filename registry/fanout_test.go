package registry_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/plugmicro/micro/registry"
	"github.com/stretchr/testify/require"
)

func at(address string) *registry.Service {
	s := service("1", "a")
	s.Nodes[0].Address = address
	return s
}

func result(action string, s *registry.Service) *registry.Result {
	return &registry.Result{Action: action, Service: s}
}

func watch(t *testing.T, f *registry.Fanout) registry.Watcher {
	w, err := f.Watch()
	require.NoError(t, err)
	t.Cleanup(w.Stop)
	return w
}

// next reads what is pending now.
func next(t *testing.T, w registry.Watcher) string {
	r, err := w.Next()
	require.NoError(t, err)
	require.Len(t, r.Service.Nodes, 1)
	return fmt.Sprintf("%s %s %s %s", r.Action, r.Service.Version, r.Service.Nodes[0].ID, r.Service.Nodes[0].Address)
}

func TestFanoutTellsAllWatchersInOrder(t *testing.T) {
	var f registry.Fanout
	f.Publish(result("create", service("1", "before")))
	one, two := watch(t, &f), watch(t, &f)
	s := service("1", "a", "b")
	f.Publish(result("create", s), result("delete", service("1", "old")), result("create", service("1")))
	s.Nodes[0].Address = "changed after publishing"
	for _, w := range []registry.Watcher{one, two} {
		require.Equal(t, "create 1 a 192.0.2.1:80", next(t, w))
		require.Equal(t, "create 1 b 192.0.2.1:80", next(t, w))
		require.Equal(t, "delete 1 old 192.0.2.1:80", next(t, w))
	}
}

func TestFanoutGivesEachItsOwnCopy(t *testing.T) {
	var f registry.Fanout
	one, two := watch(t, &f), watch(t, &f)
	f.Publish(result("create", full()))
	for name, change := range changes {
		r, err := one.Next()
		require.NoError(t, err)
		change(r.Service)
		r, err = two.Next()
		require.NoError(t, err)
		require.Equal(t, full(), r.Service, name)
		f.Publish(result("create", full()))
	}
}

func TestFanoutFolds(t *testing.T) {
	const C, U, D = registry.Create, registry.Update, registry.Delete
	for _, test := range []struct {
		actions []string
		want    string
	}{
		{[]string{C}, C}, {[]string{U}, U}, {[]string{D}, D},
		{[]string{C, U}, C}, {[]string{U, U}, U},
		{[]string{U, D}, D}, {[]string{C, D}, D},
		{[]string{D, C}, U}, {[]string{D, C, D}, D},
		{[]string{C, D, C}, C}, {[]string{C, D, C, U}, C}, {[]string{U, D, C}, U},
	} {
		t.Run(fmt.Sprint(test.actions), func(t *testing.T) {
			var f registry.Fanout
			w := watch(t, &f)
			f.Publish(result(C, service("1", "first")))
			for i, action := range test.actions {
				f.Publish(result(action, at(fmt.Sprint("state ", i))))
				f.Publish(result(C, service("2", "a")))
			}
			require.Equal(t, "create 1 first 192.0.2.1:80", next(t, w))
			require.Equal(t, fmt.Sprintf("%s 1 a state %d", test.want, len(test.actions)-1), next(t, w))
			require.Equal(t, "create 2 a 192.0.2.1:80", next(t, w), "another version is another node")
			f.Publish(result(U, at("later")))
			require.Equal(t, "update 1 a later", next(t, w), "folding ends with reading")
		})
	}
}

func TestFanoutIsBoundedByTheNumberOfNodes(t *testing.T) {
	var f registry.Fanout
	w := watch(t, &f)
	for i := range 10_000 {
		f.Publish(result("update", service("1", fmt.Sprint("node ", i%10))))
	}
	f.Publish(result("create", service("1", "end")))
	for i := range 10 {
		require.Equal(t, fmt.Sprintf("update 1 node %d 192.0.2.1:80", i), next(t, w))
	}
	require.Equal(t, "create 1 end 192.0.2.1:80", next(t, w))
}

func TestFanoutGivesUpOnAWatcherThatIsNeverRead(t *testing.T) {
	var f registry.Fanout
	w := watch(t, &f)
	other := watch(t, &f)
	for i := range 1<<16 + 1 {
		f.Publish(result("delete", service("1", fmt.Sprint(i))))
		next(t, other)
	}
	_, err := w.Next()
	require.ErrorContains(t, err, "watch again")
	require.NotErrorIs(t, err, registry.ErrClosed)
	require.NotErrorIs(t, err, registry.ErrWatcherStopped)
}

func TestFanoutEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*registry.Fanout, registry.Watcher)
		want error
	}{
		"stop":            {func(_ *registry.Fanout, w registry.Watcher) { w.Stop(); w.Stop() }, registry.ErrWatcherStopped},
		"close":           {func(f *registry.Fanout, _ registry.Watcher) { f.Close(); f.Close() }, registry.ErrClosed},
		"stop then close": {func(f *registry.Fanout, w registry.Watcher) { w.Stop(); f.Close() }, registry.ErrWatcherStopped},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f registry.Fanout
				w, err := f.Watch()
				require.NoError(t, err)
				var readers sync.WaitGroup
				for range 3 {
					readers.Go(func() {
						_, err := w.Next()
						require.ErrorIs(t, err, test.want)
					})
				}
				synctest.Wait() // all of them wait in Next
				test.end(&f, w)
				readers.Wait()

				f.Publish(result("create", service("1", "a")))
				_, err = w.Next()
				require.ErrorIs(t, err, test.want)
			})
		})
	}
	var f registry.Fanout
	f.Close()
	_, err := f.Watch()
	require.ErrorIs(t, err, registry.ErrClosed)
}

func TestFanoutLetsSeveralReadOneWatcher(t *testing.T) {
	var f registry.Fanout
	w := watch(t, &f)
	var readers sync.WaitGroup
	seen := make(chan string, 100)
	for range 4 {
		readers.Go(func() {
			for {
				r, err := w.Next()
				if err != nil {
					return
				}
				seen <- r.Service.Nodes[0].ID
			}
		})
	}
	for i := range 100 {
		f.Publish(result("create", service("1", fmt.Sprint(i))))
	}
	got := make(map[string]bool)
	for range 100 {
		got[<-seen] = true
	}
	require.Len(t, got, 100)
	w.Stop()
	readers.Wait()
}
