// franz-go: the scenario that every client runs against a broker.
//
// Usage: franz-go BOOTSTRAP. Prints what outcome.py reads; the first failure ends it with exit code 1.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	. "ottla.dev/tests/clients/go/scenario"
)

var (
	bootstrap = Bootstrap()
	topic     = "franz-go-" + Run
	group     = "franz-go-group-" + Run
	hooks     = &counters{}
	said      = &Said{Words: []string{"[warn]", "[error]"}}
)

// What franz-go tells its hooks: failed dials, writes and reads.
type counters struct{ errors atomic.Int64 }

func (c *counters) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	c.count(err)
}
func (c *counters) OnBrokerE2E(_ kgo.BrokerMetadata, _ int16, e2e kgo.BrokerE2E) {
	c.count(e2e.WriteErr)
	c.count(e2e.ReadErr)
}
func (c *counters) count(err error) {
	// A client that is closed cuts its own dials and reads short.
	if err == nil || errors.Is(err, kgo.ErrClientClosed) || errors.Is(err, context.Canceled) {
		return
	}
	// What waits behind a request that ended its connection dies with it, and that one was counted if it was a failure.
	if strings.HasPrefix(err.Error(), "the broker connection has died") {
		return
	}
	fmt.Println("  error:", err)
	c.errors.Add(1)
}

func client(opts ...kgo.Opt) *kgo.Client {
	logger := kgo.BasicLogger(said, kgo.LogLevelWarn, nil)
	own := []kgo.Opt{kgo.SeedBrokers(bootstrap...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.WithHooks(hooks), kgo.WithLogger(logger)}
	c, err := kgo.NewClient(append(own, opts...)...)
	Must(err, "new client")
	return c
}

func adminCreates(ctx context.Context, admin *kadm.Client) {
	retention := Retention
	_, err := admin.CreateTopic(ctx, 2, int16(ReplicationFactor), map[string]*string{"retention.ms": &retention}, topic)
	Must(err, "create topic")
	_, err = admin.UpdatePartitions(ctx, Partitions, topic)
	Must(err, "update partitions")
	WaitUntil(func() bool {
		details, err := admin.ListTopics(ctx, topic)
		return err == nil && len(details[topic].Partitions) == Partitions
	}, "the new partitions")
	Ok("create")
	limit := strconv.Itoa(LargeLimitBytes)
	_, err = admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &limit}}, topic)
	Must(err, "alter configs")
	WaitUntil(func() bool {
		configs, err := admin.DescribeTopicConfigs(ctx, topic)
		Must(err, "describe configs")
		found := map[string]string{}
		for _, config := range configs[0].Configs {
			found[config.Key] = config.MaybeValue()
		}
		return found["retention.ms"] == retention && found["max.message.bytes"] == limit
	}, "the new settings")
	Ok("configs")
}

func produceWithEveryCodec(ctx context.Context) map[Place]Record {
	sent := map[Place]Record{}
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for _, name := range Codecs {
		producer := client(kgo.ProducerBatchCompression(codecs[name]))
		var records []*kgo.Record
		for i := 0; i < RecordsPerCodec; i++ {
			expected := Expected(name, i)
			records = append(records, &kgo.Record{
				Topic: topic, Partition: int32(i % Partitions), Key: []byte(expected.Key), Value: []byte(expected.Value),
				Headers: []kgo.RecordHeader{{Key: "codec", Value: []byte(name)}},
			})
		}
		for _, result := range producer.ProduceSync(ctx, records...) {
			Must(result.Err, "produce with "+name)
			sent[Place{Partition: result.Record.Partition, Offset: result.Record.Offset}] = comparable(result.Record)
		}
		producer.Close()
	}
	Check(len(sent) == RecordsPerCodec*len(codecs), "%d records have places of their own", len(sent))
	Ok("idempotent")
	return sent
}

func comparable(r *kgo.Record) Record {
	headers := ""
	for _, header := range r.Headers {
		headers += header.Key + "=" + string(header.Value)
	}
	return Record{Key: string(r.Key), Value: string(r.Value), Headers: headers}
}

// One record from a place on.
func readAt(ctx context.Context, partition int32, offset kgo.Offset) *kgo.Record {
	reader := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: offset}}), kgo.FetchMaxWait(100*time.Millisecond))
	defer reader.Close()
	records := reader.PollFetches(ctx).Records()
	Check(len(records) > 0, "no record in partition %d at %v", partition, offset)
	return records[0]
}

func largeRecord(ctx context.Context) Place {
	producer := client(kgo.ProducerBatchMaxBytes(LargeLimitBytes))
	defer producer.Close()
	r := &kgo.Record{Topic: topic, Partition: 3, Value: Large()}
	Must(producer.ProduceSync(ctx, r).FirstErr(), "produce a large record")
	Check(bytes.Equal(readAt(ctx, 3, kgo.NewOffset().At(r.Offset)).Value, r.Value), "the large record differs")
	Ok("large")
	return Place{Partition: 3, Offset: r.Offset}
}

type member struct {
	client      *kgo.Client
	mu          sync.Mutex
	owned, lost map[int32]bool
}

func (m *member) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.owned)
}

func newMember(group string, balancer kgo.GroupBalancer) *member {
	m := &member{owned: map[int32]bool{}, lost: map[int32]bool{}}
	change := func(owned bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range changed[topic] {
				if owned {
					m.owned[p] = true
				} else {
					delete(m.owned, p)
					m.lost[p] = true
				}
			}
		}
	}
	m.client = client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.HeartbeatInterval(300*time.Millisecond),
		kgo.Balancers(balancer), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	return m
}

// Two members with a rebalance between them, reading until `count` records were seen.
func twoMembers(ctx context.Context, group string, balancer kgo.GroupBalancer, count int) (map[Place]Record, *member, *member) {
	var mu sync.Mutex
	seen := map[Place]Record{}
	poll := func(m *member) {
		for {
			fetches := m.client.PollFetches(ctx)
			if fetches.IsClientClosed() || ctx.Err() != nil {
				return
			}
			fetches.EachRecord(func(r *kgo.Record) {
				mu.Lock()
				defer mu.Unlock()
				seen[Place{Partition: r.Partition, Offset: r.Offset}] = comparable(r)
			})
		}
	}
	first := newMember(group, balancer)
	go poll(first)
	WaitUntil(func() bool { return first.count() == Partitions }, "the first consumer to own every partition")
	second := newMember(group, balancer)
	go poll(second)
	WaitUntil(func() bool { return first.count() == 2 && second.count() == 2 }, "the group to share its partitions")
	WaitUntil(func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) == count }, "every record to be read")
	return seen, first, second
}

func groups(ctx context.Context, sent map[Place]Record, large Place) {
	seen, first, second := twoMembers(ctx, group, kgo.RangeBalancer(), len(sent)+1)
	delete(seen, large)
	Same(sent, seen)
	Must(first.client.CommitUncommittedOffsets(ctx), "commit")
	Must(second.client.CommitUncommittedOffsets(ctx), "commit")
	first.client.Close()
	second.client.Close()
	Ok("codecs")
	Ok("group")
	_, first, second = twoMembers(ctx, group+"-cooperative", kgo.CooperativeStickyBalancer(), len(sent)+1)
	first.mu.Lock()
	Check(len(first.lost) == 2, "the first member lost %v", first.lost)
	first.mu.Unlock()
	first.client.Close()
	second.client.Close()
	Ok("cooperative")
}

func seekByTime(ctx context.Context, admin *kadm.Client) {
	producer := client()
	middle := time.Now().Add(time.Minute)
	var placed []int64
	for i := 0; i < 10; i++ {
		r := &kgo.Record{Topic: topic, Partition: 0, Value: []byte("timed"), Timestamp: middle.Add(time.Duration(i) * time.Second)}
		Must(producer.ProduceSync(ctx, r).FirstErr(), "produce")
		placed = append(placed, r.Offset)
	}
	producer.Close()
	at := middle.Add(4500 * time.Millisecond).UnixMilli()
	offsets, err := admin.ListOffsetsAfterMilli(ctx, at, topic)
	Must(err, "list offsets")
	found, _ := offsets.Lookup(topic, 0)
	Check(found.Offset == placed[5], "found %d, want %d", found.Offset, placed[5])
	record := readAt(ctx, 0, kgo.NewOffset().AfterMilli(at))
	Check(record.Offset == placed[5], "read %d, want %d", record.Offset, placed[5])
	Ok("time")
}

func commitAndResume(ctx context.Context, admin *kadm.Client) {
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic, Partition: 1, At: 7, LeaderEpoch: -1, Metadata: "half way"})
	Must(admin.CommitAllOffsets(ctx, group, offsets), "commit offsets")
	fetched, err := admin.FetchOffsets(ctx, group)
	Must(err, "fetch offsets")
	committed, _ := fetched.Lookup(topic, 1)
	Check(committed.At == 7 && committed.Metadata == "half way", "committed %+v", committed)
	start, err := admin.ListStartOffsets(ctx, topic)
	Must(err, "start offsets")
	end, err := admin.ListEndOffsets(ctx, topic)
	Must(err, "end offsets")
	first, _ := start.Lookup(topic, 1)
	last, _ := end.Lookup(topic, 1)
	Check(first.Offset == 0 && last.Offset == RecordsPerCodec*5/Partitions, "from %d to %d", first.Offset, last.Offset)
	Ok("offsets")
	m := newMember(group, kgo.RangeBalancer())
	for resumed := false; !resumed; {
		m.client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if r.Partition == 1 && !resumed {
				Check(r.Offset == 7, "resumed at %d", r.Offset)
				resumed = true
			}
		})
		Check(ctx.Err() == nil, "no record after the commit")
	}
	m.client.Close()
	Ok("resume")
}

// Produces transactions, then moves what was committed to another topic, offsets and records in one transaction.
func transactions(ctx context.Context, admin *kadm.Client) {
	from, to := "franz-go-transactions-"+Run, "franz-go-moved-"+Run
	for _, name := range []string{from, to} {
		_, err := admin.CreateTopic(ctx, 2, int16(ReplicationFactor), nil, name)
		Must(err, "create topic")
	}
	record := func(topic, value string, number int) *kgo.Record {
		return &kgo.Record{Topic: topic, Partition: int32(number % 2), Value: []byte(value)}
	}
	producer := client(kgo.TransactionalID(from))
	expected := map[string]bool{}
	for _, name := range []string{"first", "aborted", "last"} {
		Must(producer.BeginTransaction(), "begin")
		for i := 0; i < 20; i++ {
			value := fmt.Sprintf("%s-%d", name, i)
			Must(producer.ProduceSync(ctx, record(from, value, i)).FirstErr(), "produce in a transaction")
			if name != "aborted" {
				expected[value] = true
			}
		}
		Must(producer.EndTransaction(ctx, kgo.TransactionEndTry(name != "aborted")), "end")
	}
	producer.Close()
	logger := kgo.BasicLogger(said, kgo.LogLevelWarn, nil)
	session, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(bootstrap...), kgo.WithHooks(hooks), kgo.WithLogger(logger),
		kgo.TransactionalID(to), kgo.ConsumerGroup(to), kgo.ConsumeTopics(from), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets())
	Must(err, "new session")
	for moved := 0; moved < len(expected); {
		fetches := session.PollFetches(ctx)
		Must(fetches.Err0(), "poll")
		Must(session.Begin(), "begin")
		for i, read := range fetches.Records() {
			Must(session.Client().ProduceSync(ctx, record(to, string(read.Value), i)).FirstErr(), "produce in a transaction")
		}
		committed, err := session.End(ctx, kgo.TryCommit)
		Must(err, "end")
		Check(committed, "the transaction was not committed")
		moved += fetches.NumRecords()
	}
	session.Close()
	offsets, err := admin.FetchOffsets(ctx, to)
	Must(err, "fetch offsets")
	Check(len(offsets.Offsets()[from]) == 2, "offsets %v", offsets)
	start := kgo.NewOffset().AtStart()
	reader := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{to: {0: start, 1: start}}), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	for count := 0; count < len(expected); {
		for _, read := range reader.PollFetches(ctx).Records() {
			Check(expected[string(read.Value)], "%s was never committed, or is there twice", read.Value)
			expected[string(read.Value)] = false
			count++
		}
	}
	reader.Close()
	_, err = admin.DeleteGroups(ctx, to)
	Must(err, "delete group")
	_, err = admin.DeleteTopics(ctx, from, to)
	Must(err, "delete topics")
	Ok("transactions")
}

func adminLooksAround(ctx context.Context, admin *kadm.Client) {
	listed, err := admin.ListGroups(ctx)
	Must(err, "list groups")
	Check(listed[group].Group == group, "the group is not listed")
	WaitUntil(func() bool {
		described, err := admin.DescribeGroups(ctx, group)
		return err == nil && described[group].State == "Empty"
	}, "the group to be empty")
	lag, err := admin.Lag(ctx, group)
	Must(err, "lag")
	for _, described := range lag {
		Must(described.Error(), "lag")
	}
	_, err = admin.DeleteGroups(ctx, group)
	Must(err, "delete group")
	Ok("groups")
	versions, err := admin.ApiVersions(ctx)
	Must(err, "api versions")
	for _, broker := range versions {
		// What kminion logs and exports as the cluster's version. It ends at the first release of which the broker lacks an
		// API.
		guess := broker.VersionGuess()
		fmt.Println("  guessed:", guess)
		old := strings.HasPrefix(guess, "not even") || strings.Contains(guess, "v0.8") || strings.Contains(guess, "v0.9")
		Check(!old, "franz-go takes the broker for %s", guess)
	}
	var before kadm.Offsets
	before.AddOffset(topic, 2, 3, -1)
	deleted, err := admin.DeleteRecords(ctx, before)
	Must(err, "delete records")
	low, _ := deleted.Lookup(topic, 2)
	Check(low.LowWatermark == 3, "low watermark %d", low.LowWatermark)
	_, err = admin.DeleteTopics(ctx, topic)
	Must(err, "delete topic")
	WaitUntil(func() bool {
		details, err := admin.ListTopics(ctx)
		return err == nil && !details.Has(topic)
	}, "the topic to be gone")
	Ok("delete")
}

func main() {
	Version("github.com/twmb/franz-go")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	admin := kadm.NewClient(client())
	adminCreates(ctx, admin)
	sent := produceWithEveryCodec(ctx)
	large := largeRecord(ctx)
	groups(ctx, sent, large)
	seekByTime(ctx, admin)
	commitAndResume(ctx, admin)
	transactions(ctx, admin)
	adminLooksAround(ctx, admin)
	Count("errors", hooks.errors.Load())
	Count("warnings", said.N.Load())
}
