// franz-go: a steady load with its own check, one of the five of tests/soak. See ../../python/load.py for what it does.
//
// Usage: load BOOTSTRAP TOPIC PARTITIONS RATE SIZE SECONDS. Last line: a JSON object with what was counted.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const drainMax = 120 * time.Second

type counts struct {
	Client       string `json:"client"`
	Sent         int64  `json:"sent"`
	Acknowledged int64  `json:"acknowledged"`
	Read         int64  `json:"read"`
	Gaps         int64  `json:"gaps"`
	Duplicates   int64  `json:"duplicates"`
	Errors       int64  `json:"errors"`
	Retries      *int64 `json:"retries"`
}

func must(err error) {
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	must(err)
	return n
}

func produce(bootstrap, topic string, partitions, rate, size, seconds int64, counted *counts) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond))
	must(err)
	padding := bytes.Repeat([]byte{'.'}, int(max(0, size-20)))
	started := time.Now()
	var next int64
	for time.Since(started) < time.Duration(seconds)*time.Second {
		for ; float64(next) < time.Since(started).Seconds()*float64(rate); next++ {
			value := append([]byte(fmt.Sprintf("%019d ", next/partitions)), padding...)
			client.Produce(context.Background(), &kgo.Record{Topic: topic, Partition: int32(next % partitions), Value: value}, func(_ *kgo.Record, err error) {
				if err == nil {
					atomic.AddInt64(&counted.Acknowledged, 1)
				} else {
					atomic.AddInt64(&counted.Errors, 1)
					fmt.Println("error", err)
				}
			})
		}
		time.Sleep(20 * time.Millisecond)
	}
	must(client.Flush(context.Background()))
	client.Close()
	atomic.StoreInt64(&counted.Sent, next)
}

func consume(bootstrap, topic string, partitions int64, ended *atomic.Bool, counted *counts) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumerGroup(topic+"-readers"), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	must(err)
	following := make([]int64, partitions)
	var deadline time.Time
	for {
		if ended.Load() {
			if deadline.IsZero() {
				deadline = time.Now().Add(drainMax)
			}
			if counted.Read >= atomic.LoadInt64(&counted.Sent) || time.Now().After(deadline) {
				break
			}
		}
		poll, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		fetches := client.PollFetches(poll)
		cancel()
		fetches.EachError(func(_ string, _ int32, err error) {
			if err != context.DeadlineExceeded {
				atomic.AddInt64(&counted.Errors, 1)
				fmt.Println("error", err)
			}
		})
		fetches.EachRecord(func(record *kgo.Record) {
			got := number(string(record.Value[:19]))
			if got < following[record.Partition] {
				counted.Duplicates++
				return
			}
			counted.Gaps += got - following[record.Partition]
			following[record.Partition] = got + 1
			counted.Read++
		})
	}
	client.Close()
}

func main() {
	counted := counts{Client: "franz-go"}
	partitions := number(os.Args[3])
	var ended atomic.Bool
	read := make(chan struct{})
	go func() {
		consume(os.Args[1], os.Args[2], partitions, &ended, &counted)
		close(read)
	}()
	produce(os.Args[1], os.Args[2], partitions, number(os.Args[4]), number(os.Args[5]), number(os.Args[6]), &counted)
	ended.Store(true)
	<-read
	line, err := json.Marshal(&counted)
	must(err)
	fmt.Println(string(line))
	if counted.Acknowledged != counted.Sent || counted.Read != counted.Sent || counted.Gaps+counted.Duplicates+counted.Errors > 0 {
		os.Exit(1)
	}
}
