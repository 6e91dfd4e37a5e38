// A load generator on etcd's own Go client: CALLERS goroutines share one client, each sends its next
// request when the last is answered. Prints one JSON object with the count, the time and every
// quantile that the report needs.
//
// Usage: load -endpoints A,B,C -operation put|get|serializable -callers N -seconds S -keys K -value B
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
	FirstError string  `json:"first_error,omitempty"`
}

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "client addresses")
	operation := flag.String("operation", "put", "put, get or serializable")
	callers := flag.Int("callers", 1, "requests in flight")
	seconds := flag.Float64("seconds", 5, "how long")
	keys := flag.Int("keys", 1000, "how many keys")
	value := flag.Int("value", 256, "bytes of a value")
	flag.Parse()

	cli, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(*endpoints, ","),
		DialTimeout: 5 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()
	call, err := caller(cli, *operation, *keys, strings.Repeat("v", *value))
	if err != nil {
		log.Fatal(err)
	}

	var mutex sync.Mutex
	var group sync.WaitGroup
	var all []time.Duration
	out := result{}
	start := time.Now()
	deadline := start.Add(time.Duration(*seconds * float64(time.Second)))
	for number := 0; number < *callers; number++ {
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
					first = err.Error()
					continue
				}
				mine = append(mine, time.Since(sent))
			}
			mutex.Lock()
			defer mutex.Unlock()
			all = append(all, mine...)
			out.Errors += failed
			if first != "" {
				out.FirstError = first
			}
		}(int64(number))
	}
	group.Wait()
	out.Seconds = time.Since(start).Seconds()
	out.Operations = len(all)
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	out.P50ms, out.P99ms, out.MaxMs = quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1)
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		log.Fatal(err)
	}
}

func caller(
	cli *clientv3.Client, operation string, keys int, value string,
) (func(*rand.Rand) error, error) {
	key := func(random *rand.Rand) string {
		return fmt.Sprintf("bench/%08d", random.Intn(keys))
	}
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
		return run(func(r *rand.Rand) clientv3.Op { return clientv3.OpPut(key(r), value) }), nil
	case "get":
		return run(func(r *rand.Rand) clientv3.Op { return clientv3.OpGet(key(r)) }), nil
	case "serializable":
		return run(func(r *rand.Rand) clientv3.Op {
			return clientv3.OpGet(key(r), clientv3.WithSerializable())
		}), nil
	}
	return nil, fmt.Errorf("unknown operation %q", operation)
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
