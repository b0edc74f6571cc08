package main

import (
	"bytes"
	"crypto/sha3"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
)

// What the client and the server share: contract.py says why the figures are what they are.

const (
	service    = "calls.Peer"
	streamed   = 3
	concurrent = 100
	entries    = 200
	statuses   = 17
	repeats    = 10
	loaded     = 8
	piece      = 4_099
)

var (
	sizes    = []int{0, 1, 100_000, 16 << 20}
	timeouts = []time.Duration{50, 100, 250, 500} // milliseconds
)

func path(method string) string {
	return "/" + service + "/" + method
}

// codec leaves messages as they are.
type codec struct{}

func (codec) Name() string { return "bytes" }

func (codec) Marshal(message any) ([]byte, error) {
	return message.([]byte), nil
}

func (codec) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = data
	return nil
}

var messages sync.Map // of a size

func message(size int) []byte {
	if found, ok := messages.Load(size); ok {
		return found.([]byte)
	}
	part := sha3.SumSHAKE256([]byte(strconv.Itoa(size)), min(size, piece))
	made := bytes.Repeat(part, size/piece+1)[:size]
	messages.Store(size, made)
	return made
}

// metadataSent is `entries` of contract.py.
func metadataSent() metadata.MD {
	found := metadata.MD{}
	for number := range entries {
		if number%5 != 0 {
			found.Set(fmt.Sprintf("x-entry-%d", number), fmt.Sprintf("value %d ", number)+strings.Repeat("v", number%40))
			continue
		}
		data := make([]byte, min(1+number%50, 256-number))
		for index := range data {
			data[index] = byte(number + index)
		}
		found.Set(fmt.Sprintf("x-entry-%d-bin", number), string(data))
	}
	return found
}

// metadataOurs is what nobody else has added.
func metadataOurs(all metadata.MD) metadata.MD {
	found := metadata.MD{}
	for name, values := range all {
		if strings.HasPrefix(name, "x-") {
			found[name] = values
		}
	}
	return found
}

func packStream(count, size int) []byte {
	return binary.BigEndian.AppendUint32(packNumber(count), uint32(size))
}

func packSum(count, size int) []byte {
	return binary.BigEndian.AppendUint64(packNumber(count), uint64(size))
}

func packNumber(number int) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(number))
}

func unpackNumber(data []byte) int {
	return int(binary.BigEndian.Uint32(data))
}

// splitOptions takes NAME=NUMBER out of arguments.
func splitOptions(words []string) (map[string]int, []string) {
	options, others := map[string]int{}, []string{}
	for _, word := range words {
		name, value, isOption := strings.Cut(word, "=")
		if !isOption {
			others = append(others, word)
			continue
		}
		number, err := strconv.Atoi(value)
		must(err)
		options[name] = number
	}
	return options, others
}

func milliseconds(number int) time.Duration {
	return time.Duration(number) * time.Millisecond
}

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}
