// Package scenario is what the Go scenarios share: the names of a run, what is printed, what is produced.
package scenario

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	Partitions      = 4
	RecordsPerCodec = 200
	LargeBytes      = 3 << 20
	LargeLimitBytes = 4 << 20
	Retention       = "86400000"
)

// Codecs that every client produces with.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// Run tells the topics and groups of one run from those of another.
var Run = fmt.Sprintf("%x", time.Now().UnixNano())

// Place is where a record landed.
type Place struct {
	Partition int32
	Offset    int64
}

// Record is what was produced or read, in a form that can be compared.
type Record struct{ Key, Value, Headers string }

// ReplicationFactor is how many nodes a topic is to lie on, as run.py says of the cluster.
var ReplicationFactor = func() int {
	if factor, err := strconv.Atoi(os.Getenv("TEST_REPLICATION_FACTOR")); err == nil {
		return factor
	}
	return 1
}()

// Bootstrap is the addresses that the scenario was given.
func Bootstrap() []string {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: scenario BOOTSTRAP")
		os.Exit(2)
	}
	return strings.Split(os.Args[1], ",")
}

func Ok(step string)             { fmt.Println("ok " + step) }
func Skip(step, why string)      { fmt.Println("skip " + step + " " + why) }
func Count(name string, n int64) { fmt.Println("count", name, n) }

// Version prints the version of a module as it is linked into this binary.
func Version(module string) {
	info, _ := debug.ReadBuildInfo()
	for _, dependency := range info.Deps {
		if dependency.Path == module {
			fmt.Println("version", strings.TrimPrefix(dependency.Version, "v"))
		}
	}
}

func Must(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func Check(condition bool, format string, args ...any) {
	if !condition {
		Must(fmt.Errorf(format, args...), "check failed")
	}
}

func WaitUntil(condition func() bool, what string) {
	deadline := time.Now().Add(60 * time.Second)
	for !condition() {
		Check(time.Now().Before(deadline), "waited 60 s for %s", what)
		time.Sleep(50 * time.Millisecond)
	}
}

// Expected is record number i of a codec.
func Expected(codec string, i int) Record {
	value := fmt.Sprintf("%s-%d-%s", codec, i, strings.Repeat("x", 100))
	return Record{Key: fmt.Sprintf("key-%d", i%17), Value: value, Headers: "codec=" + codec}
}

// Same fails unless what was read is what was sent.
func Same(sent, seen map[Place]Record) {
	Check(len(sent) == len(seen), "%d records sent, %d read", len(sent), len(seen))
	for at, record := range sent {
		Check(seen[at] == record, "%v: sent %q, read %q", at, record, seen[at])
	}
}

// Large is a value that no codec makes small.
func Large() []byte {
	value := make([]byte, LargeBytes)
	_, err := rand.Read(value)
	Must(err, "random bytes")
	return value
}

// Said counts the lines of a client's log that have one of the words in them and are not harmless.
type Said struct {
	Words    []string
	Harmless []string
	N        atomic.Int64
}

func (s *Said) Write(line []byte) (int, error) {
	for _, word := range s.Words {
		harmless := slices.ContainsFunc(s.Harmless, func(part string) bool { return bytes.Contains(line, []byte(part)) })
		if bytes.Contains(bytes.ToLower(line), []byte(word)) && !harmless {
			s.N.Add(1)
			fmt.Printf("  %s\n", bytes.TrimSpace(line))
			break
		}
	}
	return len(line), nil
}
