// kafka-go: the scenario that every client runs against a broker.
//
// Usage: kafka-go BOOTSTRAP. Prints what outcome.py reads; the first failure ends it with exit code 1.
package main

import (
	"bytes"
	"context"
	"errors"
	"log"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	. "ottla.dev/tests/clients/go/scenario"
)

var (
	bootstrap = Bootstrap()
	topic     = "kafka-go-" + Run
	group     = "kafka-go-group-" + Run
	client    = &kafka.Client{Addr: kafka.TCP(bootstrap...), Timeout: 30 * time.Second}
	codecs    = map[string]kafka.Compression{
		"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
	}
	said            = &Said{Words: []string{""}}
	errored, repeat int64
)

func adminCreates(ctx context.Context) {
	limit := strconv.Itoa(LargeLimitBytes)
	created, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: topic, NumPartitions: 2, ReplicationFactor: ReplicationFactor,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: Retention}},
	}}})
	Must(err, "create topic")
	Must(created.Errors[topic], "create topic")
	grown, err := client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: Partitions}},
	})
	Must(err, "create partitions")
	Must(grown.Errors[topic], "create partitions")
	WaitUntil(func() bool {
		metadata, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		Must(err, "metadata")
		return len(metadata.Topics[0].Partitions) == Partitions
	}, "the new partitions")
	Ok("create")
	altered, err := client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{
				Name: "max.message.bytes", Value: limit, ConfigOperation: kafka.ConfigOperationSet,
			}},
		}},
	})
	Must(err, "alter configs")
	Must(altered.Resources[0].Error, "alter configs")
	WaitUntil(func() bool {
		described, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
			Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}},
		})
		Must(err, "describe configs")
		found := map[string]string{}
		for _, entry := range described.Resources[0].ConfigEntries {
			found[entry.ConfigName] = entry.ConfigValue
		}
		return found["retention.ms"] == Retention && found["max.message.bytes"] == limit
	}, "the new settings")
	Ok("configs")
}

// Writes messages to the partitions they name, and gives them back with their offsets.
func write(ctx context.Context, codec kafka.Compression, messages ...kafka.Message) []kafka.Message {
	var mu sync.Mutex
	var landed []kafka.Message
	writer := &kafka.Writer{
		Addr: kafka.TCP(bootstrap...), Topic: topic, RequiredAcks: kafka.RequireAll, Compression: codec,
		BatchBytes: LargeLimitBytes, BatchTimeout: 5 * time.Millisecond, ErrorLogger: log.New(said, "", 0),
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int { return m.WriterData.(int) }),
		Completion: func(done []kafka.Message, err error) {
			mu.Lock()
			defer mu.Unlock()
			landed = append(landed, done...)
		},
	}
	Must(writer.WriteMessages(ctx, messages...), "write")
	Must(writer.Close(), "close writer")
	stats := writer.Stats()
	errored += stats.Errors
	repeat += stats.Retries
	return landed
}

func produceWithEveryCodec(ctx context.Context) map[Place]Record {
	sent := map[Place]Record{}
	for _, name := range Codecs {
		var messages []kafka.Message
		for i := 0; i < RecordsPerCodec; i++ {
			expected := Expected(name, i)
			messages = append(messages, kafka.Message{
				WriterData: i % Partitions, Key: []byte(expected.Key), Value: []byte(expected.Value),
				Headers: []kafka.Header{{Key: "codec", Value: []byte(name)}},
			})
		}
		for _, m := range write(ctx, codecs[name], messages...) {
			sent[Place{Partition: int32(m.Partition), Offset: m.Offset}] = comparable(m)
		}
	}
	Check(len(sent) == RecordsPerCodec*len(codecs), "%d records have places of their own", len(sent))
	Skip("idempotent", "kafka-go has no idempotent producer")
	Skip("transactions", "kafka-go has requests for them, and no producer that sends them")
	return sent
}

func comparable(m kafka.Message) Record {
	record := Record{Key: string(m.Key), Value: string(m.Value)}
	for _, header := range m.Headers {
		record.Headers += header.Key + "=" + string(header.Value)
	}
	return record
}

func reader(more kafka.ReaderConfig) *kafka.Reader {
	more.Brokers, more.Topic = bootstrap, topic
	more.MaxBytes, more.MaxWait = LargeLimitBytes, time.Second
	more.HeartbeatInterval, more.ErrorLogger = 300*time.Millisecond, log.New(said, "", 0)
	more.StartOffset = kafka.FirstOffset
	// Without a group it asks for its lag when it begins, and logs an error if it is closed meanwhile.
	more.ReadLagInterval = -1
	return kafka.NewReader(more)
}

func closeReader(r *kafka.Reader) {
	stats := r.Stats()
	errored += stats.Errors
	Must(r.Close(), "close reader")
}

func largeRecord(ctx context.Context) Place {
	value := Large()
	placed := write(ctx, 0, kafka.Message{WriterData: 3, Value: value})[0]
	r := reader(kafka.ReaderConfig{Partition: 3})
	Must(r.SetOffset(placed.Offset), "seek")
	m, err := r.ReadMessage(ctx)
	Must(err, "read the large record")
	Check(bytes.Equal(m.Value, value) && m.Offset == placed.Offset, "the large record differs")
	closeReader(r)
	Ok("large")
	return Place{Partition: 3, Offset: placed.Offset}
}

// A member of the group; kafka-go does not tell what it owns: which partitions it reads from tells it.
type member struct {
	reader *kafka.Reader
	mu     *sync.Mutex
	seen   map[Place]Record
	reads  map[int]bool
	stop   context.CancelFunc
	done   chan struct{}
}

func newMember(ctx context.Context, mu *sync.Mutex, seen map[Place]Record) *member {
	ctx, stop := context.WithCancel(ctx)
	m := &member{mu: mu, seen: seen, reads: map[int]bool{}, stop: stop, done: make(chan struct{})}
	m.reader = reader(kafka.ReaderConfig{GroupID: group, WatchPartitionChanges: true})
	go func() {
		defer close(m.done)
		for {
			message, err := m.reader.FetchMessage(ctx)
			if errors.Is(err, context.Canceled) {
				return
			}
			Must(err, "fetch")
			m.mu.Lock()
			m.seen[Place{Partition: int32(message.Partition), Offset: message.Offset}] = comparable(message)
			m.reads[message.Partition] = true
			m.mu.Unlock()
			// Not cut short by the end of this member: what it has read it commits.
			Must(m.reader.CommitMessages(context.Background(), message), "commit")
		}
	}()
	return m
}

func (m *member) close() {
	m.stop()
	<-m.done
	closeReader(m.reader)
}

func groupWithARebalance(ctx context.Context, sent map[Place]Record, large Place) {
	var mu sync.Mutex
	seen := map[Place]Record{}
	read := func(count int) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) == count }
	}
	first := newMember(ctx, &mu, seen)
	WaitUntil(read(len(sent)+1), "the first consumer to read every partition")
	second := newMember(ctx, &mu, seen)
	later := map[Place]Record{}
	WaitUntil(func() bool {
		for p := 0; p < Partitions; p++ {
			m := write(ctx, kafka.Snappy, kafka.Message{WriterData: p, Value: []byte("later")})[0]
			later[Place{Partition: int32(m.Partition), Offset: m.Offset}] = comparable(m)
		}
		mu.Lock()
		defer mu.Unlock()
		return len(second.reads) == 2
	}, "the group to share its partitions")
	WaitUntil(read(len(sent)+1+len(later)), "every record to be read")
	first.close()
	second.close()
	delete(seen, large)
	for place, record := range later {
		Check(seen[place] == record, "%v was read as %v", place, seen[place])
		delete(seen, place)
	}
	Same(sent, seen)
	Ok("codecs")
	Ok("group")
	Skip("cooperative", "kafka-go has no cooperative assignor")
}

func seekByTime(ctx context.Context) {
	middle := time.Now().Add(time.Minute)
	var messages []kafka.Message
	for i := 0; i < 10; i++ {
		messages = append(messages, kafka.Message{WriterData: 0, Value: []byte("timed"), Time: middle.Add(time.Duration(i) * time.Second)})
	}
	placed := write(ctx, kafka.Lz4, messages...)
	r := reader(kafka.ReaderConfig{Partition: 0})
	Must(r.SetOffsetAt(ctx, middle.Add(4500*time.Millisecond)), "seek")
	for i := 5; i < 10; i++ {
		m, err := r.ReadMessage(ctx)
		Must(err, "read")
		Check(m.Offset == placed[i].Offset, "offset %d, want %d", m.Offset, placed[i].Offset)
	}
	closeReader(r)
	Ok("time")
}

func commitAndResume(ctx context.Context) {
	commit := kafka.OffsetCommit{Partition: 1, Offset: 7, Metadata: "half way"}
	committed, err := client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: {commit}},
	})
	Must(err, "commit")
	Must(committed.Topics[topic][0].Error, "commit")
	fetched, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {1}}})
	Must(err, "fetch offsets")
	at := fetched.Topics[topic][0]
	Check(at.CommittedOffset == 7 && at.Metadata == "half way", "committed %+v", at)
	listed, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: {kafka.FirstOffsetOf(1), kafka.LastOffsetOf(1)}},
	})
	Must(err, "list offsets")
	ends := listed.Topics[topic][0]
	Check(ends.FirstOffset == 0 && ends.LastOffset >= RecordsPerCodec*5/Partitions, "from %d to %d", ends.FirstOffset, ends.LastOffset)
	Ok("offsets")
	var mu sync.Mutex
	seen := map[Place]Record{}
	in := func(offset int64) bool {
		mu.Lock()
		defer mu.Unlock()
		_, found := seen[Place{Partition: 1, Offset: offset}]
		return found
	}
	m := newMember(ctx, &mu, seen)
	WaitUntil(func() bool { return in(7) }, "the record after the commit")
	Check(!in(6), "the group started over")
	m.close()
	Ok("resume")
}

func adminLooksAround(ctx context.Context) {
	listed, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{})
	Must(err, "list groups")
	found := false
	for _, one := range listed.Groups {
		found = found || one.GroupID == group
	}
	Check(found, "groups %v", listed.Groups)
	WaitUntil(func() bool {
		described, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
		Must(err, "describe group")
		return described.Groups[0].GroupState == "Empty"
	}, "the group to be empty")
	deleted, err := client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
	Must(err, "delete group")
	Must(deleted.Errors[group], "delete group")
	Ok("groups")
	gone, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	Must(err, "delete topic")
	Must(gone.Errors[topic], "delete topic")
	WaitUntil(func() bool {
		metadata, err := client.Metadata(ctx, &kafka.MetadataRequest{})
		Must(err, "metadata")
		for _, one := range metadata.Topics {
			if one.Name == topic {
				return false
			}
		}
		return true
	}, "the topic to be gone")
	Ok("delete the topic only: kafka-go cannot delete records")
}

func main() {
	Version("github.com/segmentio/kafka-go")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	adminCreates(ctx)
	sent := produceWithEveryCodec(ctx)
	large := largeRecord(ctx)
	groupWithARebalance(ctx, sent, large)
	seekByTime(ctx)
	commitAndResume(ctx)
	adminLooksAround(ctx)
	Count("errors", errored)
	Count("retries", repeat)
	Count("warnings", said.N.Load())
}
