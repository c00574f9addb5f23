// sarama: the scenario that every client runs against a broker.
//
// Usage: sarama BOOTSTRAP. Prints what outcome.py reads; the first failure ends it with exit code 1.
package main

import (
	"bytes"
	"context"
	"log"

	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"
	. "ottla.dev/tests/clients/go/scenario"
)

var (
	brokers = Bootstrap()
	topic   = "sarama-" + Run
	group   = "sarama-group-" + Run
	codecs  = map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}
	// sarama has no counters of its own failures: it logs them, and each attempt to do it again.
	said = &Said{Words: []string{"error", "fail", "retry", "abandon", "timed out"}, Harmless: []string{"Not an error", "successful to add partitions txn"}}
)

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	c.Consumer.MaxWaitTime = 100 * time.Millisecond
	c.Producer.Return.Successes = true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	return c
}

func client(c *sarama.Config) sarama.Client {
	client, err := sarama.NewClient(brokers, c)
	Must(err, "new client")
	return client
}

// A client whose connections stand. Two partitions of one leader would both open it, and the second one sends while the first has
// not locked the connection yet: sarama's producer (1.61) then says "broker not connected" and retries, without any broker's doing.
func connected(c *sarama.Config) sarama.Client {
	client := client(c)
	for _, broker := range client.Brokers() {
		if err := broker.Open(c); err != sarama.ErrAlreadyConnected {
			Must(err, "open a connection")
		}
		_, err := broker.Connected()
		Must(err, "connect")
	}
	return client
}

func adminCreates(admin sarama.ClusterAdmin) {
	retention, limit := Retention, strconv.Itoa(LargeLimitBytes)
	detail := sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: int16(ReplicationFactor), ConfigEntries: map[string]*string{"retention.ms": &retention}}
	Must(admin.CreateTopic(topic, &detail, false), "create topic")
	Must(admin.CreatePartitions(topic, Partitions, nil, false), "create partitions")
	WaitUntil(func() bool {
		described, err := admin.DescribeTopics([]string{topic})
		Must(err, "describe topic")
		return len(described[0].Partitions) == Partitions
	}, "the new partitions")
	Ok("create")
	entries := map[string]sarama.IncrementalAlterConfigsEntry{
		"max.message.bytes": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &limit},
	}
	Must(admin.IncrementalAlterConfig(sarama.TopicResource, topic, entries, false), "alter configs")
	WaitUntil(func() bool {
		described, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
		Must(err, "describe configs")
		found := map[string]string{}
		for _, entry := range described {
			found[entry.Name] = entry.Value
		}
		return found["retention.ms"] == retention && found["max.message.bytes"] == limit
	}, "the new settings")
	Ok("configs")
}

func produce(c *sarama.Config, messages ...*sarama.ProducerMessage) {
	c.Producer.Idempotent = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Net.MaxOpenRequests = 1
	client := connected(c)
	producer, err := sarama.NewSyncProducerFromClient(client)
	Must(err, "producer")
	Must(producer.SendMessages(messages), "produce")
	Must(producer.Close(), "close producer")
	Must(client.Close(), "close client")
}

func produceWithEveryCodec() map[Place]Record {
	sent := map[Place]Record{}
	for _, name := range Codecs {
		c := config()
		c.Producer.Compression = codecs[name]
		var messages []*sarama.ProducerMessage
		for i := 0; i < RecordsPerCodec; i++ {
			expected := Expected(name, i)
			messages = append(messages, &sarama.ProducerMessage{
				Topic: topic, Partition: int32(i % Partitions), Key: sarama.StringEncoder(expected.Key),
				Value:   sarama.StringEncoder(expected.Value),
				Headers: []sarama.RecordHeader{{Key: []byte("codec"), Value: []byte(name)}},
			})
		}
		produce(c, messages...)
		for i, message := range messages {
			sent[Place{Partition: message.Partition, Offset: message.Offset}] = Expected(name, i)
		}
	}
	Check(len(sent) == RecordsPerCodec*len(codecs), "%d records have places of their own", len(sent))
	Ok("idempotent")
	return sent
}

// The first `count` records of a partition from an offset on.
func readFrom(partition int32, offset int64, count int) []*sarama.ConsumerMessage {
	consumer, err := sarama.NewConsumer(brokers, config())
	Must(err, "consumer")
	reading, err := consumer.ConsumePartition(topic, partition, offset)
	Must(err, "consume")
	var read []*sarama.ConsumerMessage
	for deadline := time.After(30 * time.Second); len(read) < count; {
		select {
		case message := <-reading.Messages():
			read = append(read, message)
		case <-deadline:
			Check(false, "%d records of %d after 30 s", len(read), count)
		}
	}
	Must(reading.Close(), "close reader")
	Must(consumer.Close(), "close consumer")
	return read
}

func largeRecord() Place {
	c := config()
	c.Producer.MaxMessageBytes = LargeLimitBytes
	value := Large()
	message := &sarama.ProducerMessage{Topic: topic, Partition: 3, Value: sarama.ByteEncoder(value)}
	produce(c, message)
	Check(bytes.Equal(readFrom(3, message.Offset, 1)[0].Value, value), "the large record differs")
	Ok("large")
	return Place{Partition: 3, Offset: message.Offset}
}

// A member of a group: what it owns, and what it read.
type member struct {
	mu    *sync.Mutex
	seen  map[Place]Record
	owned map[int32]bool
	lost  int
	group sarama.ConsumerGroup
	stop  context.CancelFunc
	done  chan struct{}
}

func (m *member) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	m.change(claim.Partition(), true)
	defer m.change(claim.Partition(), false)
	for message := range claim.Messages() {
		record := Record{Key: string(message.Key), Value: string(message.Value)}
		for _, header := range message.Headers {
			record.Headers += string(header.Key) + "=" + string(header.Value)
		}
		m.mu.Lock()
		m.seen[Place{Partition: message.Partition, Offset: message.Offset}] = record
		m.mu.Unlock()
		session.MarkMessage(message, "half way")
	}
	session.Commit()
	return nil
}

func (m *member) change(partition int32, owns bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if owns {
		m.owned[partition] = true
	} else {
		delete(m.owned, partition)
		m.lost++
	}
}

func (m *member) owns(count int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.owned) == count
}

func (m *member) close() {
	m.stop()
	<-m.done
	Must(m.group.Close(), "close group")
}

func newMember(mu *sync.Mutex, seen map[Place]Record, name string, strategy sarama.BalanceStrategy) *member {
	c := config()
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	joined, err := sarama.NewConsumerGroup(brokers, name, c)
	Must(err, "consumer group")
	ctx, stop := context.WithCancel(context.Background())
	m := &member{mu: mu, seen: seen, owned: map[int32]bool{}, group: joined, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			Must(joined.Consume(ctx, []string{topic}, m), "consume in a group")
		}
	}()
	return m
}

// Two members with a rebalance between them, reading until `count` records were seen; how many claims the first gave up.
func twoMembers(name string, strategy sarama.BalanceStrategy, count int) (map[Place]Record, int) {
	var mu sync.Mutex
	seen := map[Place]Record{}
	first := newMember(&mu, seen, name, strategy)
	WaitUntil(func() bool { return first.owns(Partitions) }, "the first consumer to own every partition")
	second := newMember(&mu, seen, name, strategy)
	WaitUntil(func() bool { return first.owns(2) && second.owns(2) }, "the group to share its partitions")
	WaitUntil(func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) == count }, "every record to be read")
	mu.Lock()
	lost := first.lost
	mu.Unlock()
	first.close()
	second.close()
	return seen, lost
}

func groups(sent map[Place]Record, large Place) {
	seen, lost := twoMembers(group, sarama.NewBalanceStrategyRange(), len(sent)+1)
	delete(seen, large)
	Same(sent, seen)
	Check(lost >= Partitions, "an eager rebalance took %d claims", lost)
	Ok("codecs")
	Ok("group")
	_, lost = twoMembers(group+"-cooperative", sarama.NewBalanceStrategyCooperativeSticky(), len(sent)+1)
	Check(lost == 2, "a cooperative rebalance took %d claims", lost)
	Ok("cooperative")
}

func seekByTime(c sarama.Client) {
	middle := time.Now().Add(time.Minute)
	var messages []*sarama.ProducerMessage
	for i := 0; i < 10; i++ {
		at := middle.Add(time.Duration(i) * time.Second)
		messages = append(messages, &sarama.ProducerMessage{Topic: topic, Partition: 0, Value: sarama.StringEncoder("timed"), Timestamp: at})
	}
	produce(config(), messages...)
	found, err := c.GetOffset(topic, 0, middle.Add(4500*time.Millisecond).UnixMilli())
	Must(err, "offset of a time")
	Check(found == messages[5].Offset, "found %d, want %d", found, messages[5].Offset)
	for i, message := range readFrom(0, found, 5) {
		Check(message.Offset == messages[5+i].Offset, "offset %d", message.Offset)
	}
	Ok("time")
}

func commitAndResume(c sarama.Client, admin sarama.ClusterAdmin) {
	manager, err := sarama.NewOffsetManagerFromClient(group, c)
	Must(err, "offset manager")
	partition, err := manager.ManagePartition(topic, 1)
	Must(err, "manage partition")
	partition.ResetOffset(7, "half way")
	manager.Commit()
	partition.AsyncClose()
	Must(manager.Close(), "close manager")
	fetched, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {1}})
	Must(err, "fetch offsets")
	block := fetched.GetBlock(topic, 1)
	Check(block.Offset == 7 && block.Metadata == "half way", "committed %+v", block)
	first, err := c.GetOffset(topic, 1, sarama.OffsetOldest)
	Must(err, "oldest")
	last, err := c.GetOffset(topic, 1, sarama.OffsetNewest)
	Must(err, "newest")
	Check(first == 0 && last == RecordsPerCodec*5/Partitions, "from %d to %d", first, last)
	Ok("offsets")
	var mu sync.Mutex
	seen := map[Place]Record{}
	m := newMember(&mu, seen, group, sarama.NewBalanceStrategyRange())
	in := func(offset int64) bool {
		mu.Lock()
		defer mu.Unlock()
		_, found := seen[Place{Partition: 1, Offset: offset}]
		return found
	}
	WaitUntil(func() bool { return in(7) }, "the record after the commit")
	Check(!in(6), "the group started over")
	m.close()
	Ok("resume")
}

func transactions(admin sarama.ClusterAdmin) {
	name := "sarama-transactions-" + Run
	detail := sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: int16(ReplicationFactor)}
	Must(admin.CreateTopic(name, &detail, false), "create topic")
	c := config()
	c.Producer.Idempotent = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Transaction.ID = name
	c.Net.MaxOpenRequests = 1
	client := connected(c)
	producer, err := sarama.NewSyncProducerFromClient(client)
	Must(err, "producer")
	expected := map[string]bool{}
	begin := func(prefix string) {
		Must(producer.BeginTxn(), "begin")
		for i := 0; i < 20; i++ {
			value := prefix + "-" + strconv.Itoa(i)
			_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: name, Partition: int32(i % 2), Value: sarama.StringEncoder(value)})
			Must(err, "produce in a transaction")
			if prefix != "aborted" {
				expected[value] = true
			}
		}
	}
	begin("first")
	Must(producer.CommitTxn(), "commit")
	begin("aborted")
	Must(producer.AbortTxn(), "abort")
	begin("last")
	offsets := map[string][]*sarama.PartitionOffsetMetadata{topic: {{Partition: 1, Offset: 5}}}
	Must(producer.AddOffsetsToTxn(offsets, name), "offsets")
	Must(producer.CommitTxn(), "commit")
	Must(producer.Close(), "close producer")
	Must(client.Close(), "close client")
	// The end of a transaction is answered before its markers are written.
	WaitUntil(func() bool {
		committed, err := admin.ListConsumerGroupOffsets(name, map[string][]int32{topic: {1}})
		Must(err, "committed")
		return committed.GetBlock(topic, 1).Offset == 5
	}, "the committed offset")
	c = config()
	c.Consumer.IsolationLevel = sarama.ReadCommitted
	consumer, err := sarama.NewConsumer(brokers, c)
	Must(err, "consumer")
	for partition := int32(0); partition < 2; partition++ {
		reading, err := consumer.ConsumePartition(name, partition, sarama.OffsetOldest)
		Must(err, "consume")
		for count := 0; count < len(expected)/2; count++ {
			select {
			case message := <-reading.Messages():
				Check(expected[string(message.Value)], "%s was never committed, or is there twice", message.Value)
				expected[string(message.Value)] = false
			case <-time.After(30 * time.Second):
				Check(false, "%d records of partition %d after 30 s", count, partition)
			}
		}
		Must(reading.Close(), "close reader")
	}
	Must(consumer.Close(), "close consumer")
	Must(admin.DeleteTopic(name), "delete topic")
	Ok("transactions")
}

func adminLooksAround(admin sarama.ClusterAdmin) {
	listed, err := admin.ListConsumerGroups()
	Must(err, "list groups")
	Check(listed[group] == "consumer", "groups %v", listed)
	described, err := admin.DescribeConsumerGroups([]string{group})
	Must(err, "describe group")
	Check(described[0].State == "Empty", "state %s", described[0].State)
	Must(admin.DeleteConsumerGroup(group), "delete group")
	Ok("groups")
	Must(admin.DeleteRecords(topic, map[int32]int64{2: 3}), "delete records")
	Check(readFrom(2, sarama.OffsetOldest, 1)[0].Offset == 3, "records are still there")
	Must(admin.DeleteTopic(topic), "delete topic")
	WaitUntil(func() bool {
		topics, err := admin.ListTopics()
		Must(err, "list topics")
		_, found := topics[topic]
		return !found
	}, "the topic to be gone")
	Ok("delete")
}

func main() {
	Version("github.com/IBM/sarama")
	sarama.Logger = log.New(said, "", 0)
	c := client(config())
	admin, err := sarama.NewClusterAdmin(brokers, config())
	Must(err, "admin")
	adminCreates(admin)
	sent := produceWithEveryCodec()
	large := largeRecord()
	groups(sent, large)
	seekByTime(c)
	commitAndResume(c, admin)
	transactions(admin)
	adminLooksAround(admin)
	Must(admin.Close(), "close admin")
	Must(c.Close(), "close client")
	Count("errors", said.N.Load())
}
