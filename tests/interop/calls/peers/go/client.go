package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func shapes(client Client, tally *Tally, _ []string) {
	for _, size := range sizes {
		data := message(size)
		answer, _ := client.unary(path("Unary"), data)
		check("unary", answer, data)
		tally.add(path("Unary"), 0, []int{size}, []int{size})
		client.requested("ServerStream", packStream(streamed, size)).all("answers", data, data, data)
		tally.add(path("ServerStream"), 0, []int{8}, repeated(streamed, size))
		gathered(client, data, data, data)
		tally.add(path("ClientStream"), 0, repeated(streamed, size), []int{12})
		echoed(client, data, data, data)
		tally.add(path("BidiStream"), 0, repeated(streamed, size), repeated(streamed, size))
	}
	// Streams without a message.
	client.requested("ServerStream", packStream(0, 0)).all("no answers")
	tally.add(path("ServerStream"), 0, []int{8}, []int{})
	gathered(client)
	tally.add(path("ClientStream"), 0, []int{}, []int{12})
	echoed(client)
	tally.add(path("BidiStream"), 0, []int{}, []int{})
	together(client, tally)
	withMetadata(client, tally)
}

func gathered(client Client, requests ...[]byte) {
	stream, size := client.stream("ClientStream"), 0
	for _, each := range requests {
		stream.send(each)
		size += len(each)
	}
	must(stream.CloseSend())
	stream.all("requests", packSum(len(requests), size))
}

func echoed(client Client, requests ...[]byte) {
	stream := client.stream("BidiStream")
	// The server does not take more than it can answer.
	go func() {
		for _, each := range requests {
			stream.send(each)
		}
		must(stream.CloseSend())
	}()
	stream.all("both", requests...)
}

// together makes streams that are all open before the first one ends.
func together(client Client, tally *Tally) {
	streams := []Stream{}
	for range concurrent {
		streams = append(streams, client.stream("BidiStream"))
	}
	for range 2 {
		for size, stream := range streams {
			stream.send(message(size))
		}
		for size, stream := range streams {
			data, _ := stream.next()
			check("together", data, message(size))
		}
	}
	for size, stream := range streams {
		must(stream.CloseSend())
		stream.all("together")
		tally.add(path("BidiStream"), 0, repeated(2, size), repeated(2, size))
	}
}

func withMetadata(client Client, tally *Tally) {
	sent := metadataSent()
	ctx := metadata.NewOutgoingContext(context.Background(), sent)
	for range 3 {
		var first, last metadata.MD
		answer, _ := client.unaryIn(ctx, path("Metadata"), nil, grpc.Header(&first), grpc.Trailer(&last))
		check("metadata", answer, packNumber(entries))
		check("metadata before", metadataOurs(first), sent)
		check("metadata behind", metadataOurs(last), sent)
		tally.add(path("Metadata"), 0, []int{0}, []int{4})
	}
}

func reuse(client Client, tally *Tally, words []string) {
	for number := range counted(words) {
		data := message(number % 1_000)
		answer, _ := client.unary(path("Unary"), data)
		check("unary", answer, data)
		tally.add(path("Unary"), 0, []int{len(data)}, []int{len(data)})
	}
}

func compressed(client Client, tally *Tally, _ []string) {
	compressor := grpc.UseCompressor(gzip.Name)
	for _, size := range []int{1_000, 10_000, 1_000_000} {
		data := make([]byte, size)
		weighed(client, tally, "Unary", 1, func() {
			answer, _ := client.unary(path("Unary"), data, compressor)
			check("compressed", answer, data)
		})
	}
	for _, size := range []int{0, 1, 4_000} {
		weighed(client, tally, "BidiStream", 3, func() {
			stream := client.stream("BidiStream", compressor)
			for range 3 {
				stream.send(message(size))
			}
			must(stream.CloseSend())
			stream.all("both", message(size), message(size), message(size))
		})
	}
}

// weighed counts a call with so many messages each way, of the lengths that grpc-go says they have on the wire.
func weighed(client Client, tally *Tally, name string, count int, call func()) {
	sent, received := client.wire.sent.Load(), client.wire.received.Load()
	call()
	requests, responses := make([]int, count), make([]int, count)
	requests[0] = int(client.wire.sent.Load() - sent)
	responses[0] = int(client.wire.received.Load() - received)
	tally.add(path(name), 0, requests, responses)
}

func pings(client Client, tally *Tally, words []string) {
	for _, duration := range []int{counted(words), 1} {
		// The second one waits for a connection, where the first one has lost its own.
		_, code := client.unary(path("Slow"), packNumber(duration), grpc.WaitForReady(true))
		answers := []int{4}
		if code != 0 {
			answers = []int{}
		}
		tally.add(path("Slow"), code, []int{4}, answers)
	}
}

// load meets servers that come and go. What was not answered is not known to have been sent, or how far.
func load(client Client, tally *Tally, words []string) {
	var next, ended atomic.Int64
	var lock sync.Mutex
	atOnce(loaded, func() {
		for {
			number := int(next.Add(1)) - 1
			if number >= counted(words) {
				return
			}
			size := number % 1_000
			_, code := client.unary(path("Unary"), message(size), grpc.WaitForReady(true))
			if code == int(codes.Unavailable) {
				continue
			}
			answers := []int{size}
			if code != 0 {
				answers = []int{}
			}
			lock.Lock()
			tally.add(path("Unary"), code, []int{size}, answers)
			lock.Unlock()
			ended.Add(1)
		}
	})
	tally.addUncertain(path("Unary"), int(codes.Unavailable), int(client.wire.streams.Load()-ended.Load()))
}

// denials makes several calls at once, every other one denied by who it says to be from.
func denials(client Client, tally *Tally, words []string) {
	var next atomic.Int64
	var lock sync.Mutex
	atOnce(loaded, func() {
		for {
			number := int(next.Add(1)) - 1
			if number >= counted(words) {
				return
			}
			size := number * 7 % 1_000
			name, expected := fmt.Sprintf("bad-%d", number%5), int(codes.PermissionDenied)
			answers := []int{}
			if number%2 == 1 {
				name, expected, answers = fmt.Sprintf("good-%d", number%7), 0, []int{size}
			}
			ctx := metadata.AppendToOutgoingContext(context.Background(), "x-caller", name)
			var answer []byte
			err := client.Invoke(ctx, path("Unary"), message(size), &answer)
			check("status", codeOf(err), expected)
			if expected == 0 {
				check("allowed", answer, message(size))
			} else {
				check("details", status.Convert(err).Message(), "RBAC: access denied")
			}
			lock.Lock()
			tally.add(path("Unary"), expected, []int{size}, answers)
			lock.Unlock()
		}
	})
}

// atOnce runs something so many times at once, and waits for all of them.
func atOnce(count int, run func()) {
	var several sync.WaitGroup
	several.Add(count)
	for range count {
		go func() {
			defer several.Done()
			run()
		}()
	}
	several.Wait()
}

func counted(words []string) int {
	number, err := strconv.Atoi(words[0])
	must(err)
	return number
}

var stories = map[string]func(Client, *Tally, []string){
	"shapes": shapes, "endings": ends, "reuse": reuse, "gzip": compressed, "pings": pings, "load": load,
	"denials": denials,
}

// grpc-go pings no more often than every ten seconds: options of channels have no use here.
func call(story, host, port string, words []string) {
	_, arguments := splitOptions(words)
	client, tally := connect(host, port), newTally()
	stories[story](client, tally, arguments)
	must(client.Close())
	tally.show()
}
