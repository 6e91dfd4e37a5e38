// A load generator on etcd's own Go client: CALLERS goroutines share one client, each sends its next
// request when the last is answered. After the warm-up it prints "measuring", so that whoever
// started it can look at the servers' CPU time; at the end one JSON object with the count, the time
// and every quantile that the report needs. Requests of the warm-up are not in it.
//
// Usage: load -endpoints A,B,C -operation put|get|serializable -callers N -warmup S -seconds S
//
//	-keys K -value B
//
// With -operation watch the callers put while -watchers N watch, on -streams N: see watch.go.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

type result struct {
	Operations int     `json:"operations"`
	Errors     int     `json:"errors"`
	Seconds    float64 `json:"seconds"`
	P50ms      float64 `json:"p50_ms"`
	P99ms      float64 `json:"p99_ms"`
	MaxMs      float64 `json:"max_ms"`
	ClientCPUs float64 `json:"client_cpu_s"`
	FirstError string  `json:"first_error"`
}

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "client addresses")
	operation := flag.String("operation", "put", "put, get, serializable or watch")
	callers := flag.Int("callers", 1, "requests in flight")
	warmup := flag.Float64("warmup", 0.5, "how long before measuring, in seconds")
	seconds := flag.Float64("seconds", 5, "how long, in seconds")
	keys := flag.Int("keys", 1000, "how many keys")
	value := flag.Int("value", 256, "bytes of a value")
	watchers := flag.Int("watchers", 1000, "how many watch (operation watch)")
	streams := flag.Int("streams", 10, "over how many streams they are spread")
	flag.Parse()

	cli, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(*endpoints, ","),
		DialTimeout: 5 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()
	told := func() { fmt.Println("measuring") }
	if *operation == "watch" {
		out, err := runWatch(
			cli, *watchers, *streams, *callers, *keys, *value, *warmup, *seconds, told)
		if err != nil {
			log.Fatal(err)
		}
		report(out)
		return
	}
	call, err := caller(cli, *operation, *keys, strings.Repeat("v", *value))
	if err != nil {
		log.Fatal(err)
	}

	drive(call, *callers, *warmup)
	told()
	before := cpuSeconds()
	start := time.Now()
	all, out := drive(call, *callers, *seconds)
	out.Seconds = time.Since(start).Seconds()
	out.ClientCPUs = cpuSeconds() - before
	out.measured(all)
	report(out)
}

// measured notes the times of all requests.
func (r *result) measured(all []time.Duration) {
	r.Operations = len(all)
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	r.P50ms, r.P99ms, r.MaxMs = quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1)
}

func report(out any) {
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		log.Fatal(err)
	}
}

// drive runs all callers for a while; it returns the time that each good request took, and what
// went wrong.
func drive(call func(*rand.Rand) error, callers int, seconds float64) ([]time.Duration, result) {
	var mutex sync.Mutex
	var group sync.WaitGroup
	var all []time.Duration
	out := result{}
	deadline := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for number := 0; number < callers; number++ {
		group.Add(1)
		go func(seed int64) {
			defer group.Done()
			random := rand.New(rand.NewSource(seed))
			var mine []time.Duration
			failed, first := 0, ""
			for time.Now().Before(deadline) {
				sent := time.Now()
				if err := call(random); err != nil {
					failed++
					if first == "" {
						first = err.Error()
					}
					continue
				}
				mine = append(mine, time.Since(sent))
			}
			mutex.Lock()
			defer mutex.Unlock()
			all = append(all, mine...)
			out.Errors += failed
			if out.FirstError == "" {
				out.FirstError = first
			}
		}(int64(number))
	}
	group.Wait()
	return all, out
}

// cpuSeconds is this process's own CPU time, user and system.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func caller(
	cli *clientv3.Client, operation string, keys int, value string,
) (func(*rand.Rand) error, error) {
	run := func(op func(*rand.Rand) clientv3.Op) func(*rand.Rand) error {
		return func(random *rand.Rand) error {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err := cli.Do(ctx, op(random))
			return err
		}
	}
	switch operation {
	case "put":
		return run(func(r *rand.Rand) clientv3.Op { return clientv3.OpPut(keyOf(r, keys), value) }), nil
	case "get":
		return run(func(r *rand.Rand) clientv3.Op { return clientv3.OpGet(keyOf(r, keys)) }), nil
	case "serializable":
		return run(func(r *rand.Rand) clientv3.Op {
			return clientv3.OpGet(keyOf(r, keys), clientv3.WithSerializable())
		}), nil
	}
	return nil, fmt.Errorf("unknown operation %q", operation)
}

func keyOf(random *rand.Rand, keys int) string {
	return fmt.Sprintf("%s%08d", prefix, random.Intn(keys))
}

func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	index := int(q * float64(len(sorted)))
	if index >= len(sorted) {
		index = len(sorted) - 1
	}
	return float64(sorted[index].Microseconds()) / 1000
}
