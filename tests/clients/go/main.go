// franz-go: the scenario that every client runs against a broker.
//
// Usage: scenario BOOTSTRAP. Prints one `ok NAME` line a step; the first failure ends it with exit code 1.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	partitions      = 4
	recordsPerCodec = 200
)

var (
	bootstrap string
	run       = fmt.Sprintf("%x", time.Now().UnixNano())
	topic     = "franz-go-" + run
	group     = "franz-go-group-" + run
)

type place struct {
	partition int32
	offset    int64
}

func ok(name string) { fmt.Println("ok " + name) }

func must(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func check(condition bool, format string, args ...any) {
	if !condition {
		must(fmt.Errorf(format, args...), "check failed")
	}
}

func client(opts ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	must(err, "new client")
	return c
}

func waitUntil(condition func() bool, what string) {
	deadline := time.Now().Add(60 * time.Second)
	for !condition() {
		check(time.Now().Before(deadline), "waited 60 s for %s", what)
		time.Sleep(50 * time.Millisecond)
	}
}

func adminCreates(ctx context.Context, admin *kadm.Client) {
	retention := "86400000"
	_, err := admin.CreateTopic(ctx, 2, 1, map[string]*string{"retention.ms": &retention}, topic)
	must(err, "create topic")
	_, err = admin.UpdatePartitions(ctx, partitions, topic)
	must(err, "update partitions")
	waitUntil(func() bool {
		details, err := admin.ListTopics(ctx, topic)
		return err == nil && len(details[topic].Partitions) == partitions
	}, "the new partitions")
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	must(err, "describe configs")
	found := false
	for _, config := range configs[0].Configs {
		found = found || (config.Key == "retention.ms" && config.Value != nil && *config.Value == retention)
	}
	check(found, "retention.ms is not described as set")
	_, err = admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &retention}}, topic)
	must(err, "alter configs")
	ok("admin: create topic, add partitions, describe and alter configs")
}

func produceWithEveryCodec(ctx context.Context) map[place]string {
	sent := map[place]string{}
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for name, codec := range codecs {
		producer := client(kgo.ProducerBatchCompression(codec))
		var records []*kgo.Record
		for i := 0; i < recordsPerCodec; i++ {
			records = append(records, &kgo.Record{
				Topic: topic, Partition: int32(i % partitions), Key: []byte(fmt.Sprintf("key-%d", i)),
				Value:   []byte(fmt.Sprintf("%s-%d-%s", name, i, strings.Repeat("x", 100))),
				Headers: []kgo.RecordHeader{{Key: "codec", Value: []byte(name)}},
			})
		}
		for _, result := range producer.ProduceSync(ctx, records...) {
			must(result.Err, "produce with "+name)
			sent[place{result.Record.Partition, result.Record.Offset}] = string(result.Record.Value)
		}
		producer.Close()
	}
	check(len(sent) == recordsPerCodec*len(codecs), "%d records have places of their own", len(sent))
	ok("produce (idempotent): none, gzip, snappy, lz4, zstd")
	return sent
}

type member struct {
	client *kgo.Client
	mu     sync.Mutex
	owned  map[int32]bool
}

func (m *member) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.owned)
}

func newMember() *member {
	m := &member{owned: map[int32]bool{}}
	change := func(owned bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range changed[topic] {
				if owned {
					m.owned[p] = true
				} else {
					delete(m.owned, p)
				}
			}
		}
	}
	// The default balancer is cooperative-sticky: members keep what they own while the group rebalances.
	m.client = client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.HeartbeatInterval(300*time.Millisecond),
		kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	return m
}

func consumeInAGroupWithARebalance(ctx context.Context, sent map[place]string) {
	var mu sync.Mutex
	seen := map[place]string{}
	poll := func(m *member) {
		for {
			fetches := m.client.PollFetches(ctx)
			if fetches.IsClientClosed() || ctx.Err() != nil {
				return
			}
			fetches.EachRecord(func(r *kgo.Record) {
				mu.Lock()
				defer mu.Unlock()
				seen[place{r.Partition, r.Offset}] = string(r.Value)
			})
		}
	}
	first := newMember()
	go poll(first)
	waitUntil(func() bool { return first.count() == partitions }, "the first consumer to own every partition")
	second := newMember()
	go poll(second)
	waitUntil(func() bool { return first.count() == 2 && second.count() == 2 }, "the group to share its partitions")
	waitUntil(func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) == len(sent) }, "every record to be read")
	for at, value := range sent {
		check(seen[at] == value, "%v: sent %q, read %q", at, value, seen[at])
	}
	must(first.client.CommitUncommittedOffsets(ctx), "commit")
	first.client.Close()
	second.client.Close()
	ok("group: cooperative, two consumers, one rebalance, every record read as sent")
}

func seekByTime(ctx context.Context, admin *kadm.Client) {
	producer := client()
	middle := time.Now().Add(time.Minute)
	var placed []int64
	for i := 0; i < 10; i++ {
		r := &kgo.Record{Topic: topic, Partition: 0, Value: []byte("timed"), Timestamp: middle.Add(time.Duration(i) * time.Second)}
		must(producer.ProduceSync(ctx, r).FirstErr(), "produce")
		placed = append(placed, r.Offset)
	}
	producer.Close()
	offsets, err := admin.ListOffsetsAfterMilli(ctx, middle.Add(4500*time.Millisecond).UnixMilli(), topic)
	must(err, "list offsets")
	found, _ := offsets.Lookup(topic, 0)
	check(found.Offset == placed[5], "found %d, want %d", found.Offset, placed[5])
	reader := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(found.Offset)}}))
	record := reader.PollFetches(ctx).Records()[0]
	check(record.Offset == placed[5], "read %d, want %d", record.Offset, placed[5])
	reader.Close()
	ok("seek by time")
}

func commitAndResume(ctx context.Context, admin *kadm.Client) {
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 1, 7, -1)
	must(admin.CommitAllOffsets(ctx, group, offsets), "commit offsets")
	fetched, err := admin.FetchOffsets(ctx, group)
	must(err, "fetch offsets")
	committed, _ := fetched.Lookup(topic, 1)
	check(committed.At == 7, "committed %d", committed.At)
	m := newMember()
	for resumed := false; !resumed; {
		m.client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if r.Partition == 1 && !resumed {
				check(r.Offset == 7, "resumed at %d", r.Offset)
				resumed = true
			}
		})
		check(ctx.Err() == nil, "no record after the commit")
	}
	m.client.Close()
	ok("commit and resume")
}

func adminLooksAround(ctx context.Context, admin *kadm.Client) {
	groups, err := admin.ListGroups(ctx)
	must(err, "list groups")
	check(groups[group].Group == group, "the group is not listed")
	waitUntil(func() bool {
		described, err := admin.DescribeGroups(ctx, group)
		return err == nil && described[group].State == "Empty"
	}, "the group to be empty")
	lag, err := admin.Lag(ctx, group)
	must(err, "lag")
	for _, described := range lag {
		must(described.Error(), "lag")
	}
	_, err = admin.DeleteGroups(ctx, group)
	must(err, "delete group")
	_, err = admin.DeleteTopics(ctx, topic)
	must(err, "delete topic")
	ok("admin: list, describe, lag and delete groups, delete topic")
}

func main() {
	bootstrap = os.Args[1]
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	admin := kadm.NewClient(client())
	adminCreates(ctx, admin)
	sent := produceWithEveryCodec(ctx)
	consumeInAGroupWithARebalance(ctx, sent)
	seekByTime(ctx, admin)
	commitAndResume(ctx, admin)
	adminLooksAround(ctx, admin)
}
