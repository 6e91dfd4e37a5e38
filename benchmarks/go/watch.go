// Watching: WATCHERS watches of the one prefix, spread over STREAMS gRPC streams of one client, while
// CALLERS writers put keys below it. Every put's value begins with the moment it was sent, so each
// event tells how long it was under way.
//
// What was put while measuring must reach every watcher, once and in order, before the report is
// printed: the events' rate is theirs all, by the time until the last had arrived.
package main

import (
	"context"
	"fmt"
	"math/rand"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	prefix       = "bench/"
	stampBytes   = 20 // a moment in nanoseconds, as decimal digits
	drainTimeout = 60 * time.Second
)

type watchResult struct {
	result
	Events        int     `json:"events"`
	EventsSeconds float64 `json:"events_seconds"`
	EventP50ms    float64 `json:"event_p50_ms"`
	EventP99ms    float64 `json:"event_p99_ms"`
	Behind        int     `json:"behind"`
}

// watching is what all watchers share. Times are kept while measuring is set.
type watching struct {
	measuring atomic.Bool
	events    atomic.Int64
	mutex     sync.Mutex
	times     []time.Duration
	failure   error
}

func (w *watching) fail(err error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.failure == nil {
		w.failure = err
	}
}

func (w *watching) failed() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.failure
}

// follow takes one watcher's events until the context ends. Created is called once, when the server
// has said that it watches.
func (w *watching) follow(ctx context.Context, watch clientv3.WatchChan, created func()) {
	last := int64(0)
	var times []time.Duration
	for response := range watch {
		if response.Created {
			created()
		}
		if err := response.Err(); err != nil {
			w.fail(err)
			break
		}
		now := time.Now().UnixNano()
		measuring := w.measuring.Load()
		for _, event := range response.Events {
			// Every transaction here has one put: a revision that does not grow came twice.
			if event.Kv.ModRevision <= last {
				w.fail(fmt.Errorf("revision %d came after %d", event.Kv.ModRevision, last))
			}
			last = event.Kv.ModRevision
			if measuring {
				times = append(times, time.Duration(now-sentAt(event.Kv.Value)))
			}
		}
		w.events.Add(int64(len(response.Events)))
	}
	if ctx.Err() == nil {
		w.fail(fmt.Errorf("a watch ended by itself"))
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.times = append(w.times, times...)
}

func sentAt(value []byte) int64 {
	nanoseconds, _ := strconv.ParseInt(string(value[:stampBytes]), 10, 64)
	return nanoseconds
}

// drain waits until so many events have come, and says how many were missing when it began.
func (w *watching) drain(expected int64) (behind int64, err error) {
	behind = expected - w.events.Load()
	deadline := time.Now().Add(drainTimeout)
	for w.events.Load() < expected {
		if err := w.failed(); err != nil {
			return behind, err
		}
		if time.Now().After(deadline) {
			missing := expected - w.events.Load()
			return behind, fmt.Errorf("%d events never came", missing)
		}
		time.Sleep(time.Millisecond)
	}
	return behind, w.failed()
}

// runWatch measures; told is called when the warm-up is over and everything of it has arrived.
func runWatch(
	cli *clientv3.Client, watchers, streams, callers, keys, value int, warmup, seconds float64,
	told func(),
) (watchResult, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	all := &watching{}
	var group, ready sync.WaitGroup
	ready.Add(watchers)
	sources := make([]clientv3.Watcher, streams)
	for number := range sources {
		// Each has gRPC streams of its own, which the client spreads over its endpoints.
		sources[number] = clientv3.NewWatcher(cli)
	}
	for number := 0; number < watchers; number++ {
		watch := sources[number%streams].Watch(
			ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		group.Add(1)
		go func() {
			defer group.Done()
			all.follow(ctx, watch, ready.Done)
		}()
	}
	if err := within(drainTimeout, ready.Wait); err != nil {
		return watchResult{}, fmt.Errorf("creating %d watchers: %w", watchers, err)
	}

	put := stampedPut(cli, keys, strings.Repeat("v", max(0, value-stampBytes)))
	warm, out := drive(put, callers, warmup)
	if out.Errors > 0 {
		return watchResult{}, fmt.Errorf("a put of the warm-up failed: %s", out.FirstError)
	}
	before := int64(len(warm)) * int64(watchers)
	if _, err := all.drain(before); err != nil {
		return watchResult{}, err
	}

	told()
	all.measuring.Store(true)
	cpu := cpuSeconds()
	start := time.Now()
	puts, out := drive(put, callers, seconds)
	if out.Errors > 0 {
		return watchResult{}, fmt.Errorf("a put failed: %s", out.FirstError)
	}
	out.Seconds = time.Since(start).Seconds()
	events := int64(len(puts)) * int64(watchers)
	behind, err := all.drain(before + events)
	if err != nil {
		return watchResult{}, err
	}
	report := watchResult{result: out, Events: int(events), Behind: int(behind)}
	report.EventsSeconds = time.Since(start).Seconds()
	report.ClientCPUs = cpuSeconds() - cpu
	report.measured(puts)
	cancel()
	group.Wait()
	sort.Slice(all.times, func(i, j int) bool { return all.times[i] < all.times[j] })
	report.EventP50ms, report.EventP99ms = quantile(all.times, 0.5), quantile(all.times, 0.99)
	return report, nil
}

// stampedPut is a put of a random key whose value begins with the moment.
func stampedPut(cli *clientv3.Client, keys int, rest string) func(*rand.Rand) error {
	return func(random *rand.Rand) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stamp := fmt.Sprintf("%0*d", stampBytes, time.Now().UnixNano())
		_, err := cli.Put(ctx, keyOf(random, keys), stamp+rest)
		return err
	}
}

// within runs something that may never end.
func within(limit time.Duration, work func()) error {
	done := make(chan struct{})
	go func() {
		work()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("not done within %s", limit)
	}
}
