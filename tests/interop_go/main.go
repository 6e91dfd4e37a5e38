// The Go programs of the etcd tutorial, on the real client of etcd: each step is one subcommand.
//
// Usage: interop ENDPOINT,ENDPOINT,ENDPOINT put|get|prefix|delete|delete-prefix|watch|watch-prefix
// The two watches print "watching" once they are set up, and end after the events that they expect.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const timeout = 5 * time.Second

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: interop ENDPOINTS COMMAND [EVENTS]")
	}
	cli, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(os.Args[1], ","),
		DialTimeout: timeout,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	switch command := os.Args[2]; command {
	case "put":
		put(cli, "/tizi365/url", "www.tizi365.com")
		put(cli, "/tizi365/site/name", "tizi365")
		put(cli, "/tizi365/site/domain", "www.tizi365.com")
		put(cli, "/tizi365x", "outside of the prefix")
	case "get":
		get(cli, "/tizi365/url")
	case "prefix":
		get(cli, "/tizi365/", clientv3.WithPrefix())
	case "delete":
		remove(cli, "/tizi365/url")
	case "delete-prefix":
		remove(cli, "/tizi365/", clientv3.WithPrefix())
	case "watch":
		watch(cli, "/tizi")
	case "watch-prefix":
		watch(cli, "/tizi", clientv3.WithPrefix())
	default:
		log.Fatalf("unknown command %q", command)
	}
}

func put(cli *clientv3.Client, key, value string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if _, err := cli.Put(ctx, key, value); err != nil {
		log.Fatal(err)
	}
}

func get(cli *clientv3.Client, key string, opts ...clientv3.OpOption) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	resp, err := cli.Get(ctx, key, opts...)
	if err != nil {
		log.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		fmt.Printf("%s : %s\n", kv.Key, kv.Value)
	}
}

func remove(cli *clientv3.Client, key string, opts ...clientv3.OpOption) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	resp, err := cli.Delete(ctx, key, opts...)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("deleted %d\n", resp.Deleted)
}

func watch(cli *clientv3.Client, key string, opts ...clientv3.OpOption) {
	left := 1
	if len(os.Args) > 3 {
		count, err := strconv.Atoi(os.Args[3])
		if err != nil {
			log.Fatal(err)
		}
		left = count
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(context.Background()))
	defer cancel()
	opts = append(opts, clientv3.WithCreatedNotify())
	for resp := range cli.Watch(ctx, key, opts...) {
		if err := resp.Err(); err != nil {
			log.Fatal(err)
		}
		if resp.Created {
			fmt.Println("watching")
		}
		for _, ev := range resp.Events {
			fmt.Printf("%s %q : %q\n", ev.Type, ev.Kv.Key, ev.Kv.Value)
			left--
		}
		if left <= 0 {
			return
		}
	}
	log.Fatal("the watch ended")
}
