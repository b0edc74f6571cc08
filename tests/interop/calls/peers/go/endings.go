package main

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
)

// To be cancelled: more than goes out when nobody reads.
var endless = packStream(10_000, 100_000)

func ends(client Client, tally *Tally, _ []string) {
	for code := range statuses {
		_, found := client.unary(path("Fail"), []byte{byte(code)})
		check("status", found, code)
		answers := []int{0}
		if code != 0 {
			answers = []int{}
		}
		tally.add(path("Fail"), code, []int{1}, answers)
		late := client.requested("FailLate", []byte{byte(code)})
		data, _ := late.next()
		check("late", data, []byte("late"))
		_, found = late.next()
		check("late status", found, code)
		tally.add(path("FailLate"), code, []int{1}, []int{4})
	}
	for size := range repeats {
		_, code := client.unary(path("Crash"), message(size))
		check("crash", code, int(codes.Unknown))
		tally.add(path("Crash"), code, []int{size}, []int{})
		for _, name := range []string{path("Missing"), "/calls.Nobody/Missing"} {
			_, code := client.unary(name, message(size))
			check(name, code, int(codes.Unimplemented))
			// Headers go out before the message: the server may have answered in between.
			tally.add(name, code, nil, []int{})
		}
	}
	cancelled(client, tally)
	expired(client, tally)
	early(client, tally)
}

func cancelled(client Client, tally *Tally) {
	code := int(codes.Canceled)
	for size := range repeats {
		hanging := client.requested("Hang", message(size))
		_, err := hanging.Header() // it has reached the handler
		must(err)
		stop(hanging)
		tally.add(path("Hang"), code, []int{size}, []int{})

		both := client.stream("BidiStream")
		for range 3 {
			both.send(message(size))
			data, _ := both.next()
			check("before it is cancelled", data, message(size))
		}
		stop(both)
		tally.add(path("BidiStream"), code, repeated(3, size), repeated(3, size))

		out := client.requested("ServerStream", endless)
		out.next()
		stop(out)
		// How many had been sent by then, nobody knows here.
		tally.add(path("ServerStream"), code, []int{len(endless)}, nil)
	}
}

// stop cancels a call, whose answers are read on to its end.
func stop(stream Stream) {
	stream.cancel()
	data, code := stream.next()
	for data != nil {
		data, code = stream.next()
	}
	check("cancelled", code, int(codes.Canceled))
}

func expired(client Client, tally *Tally) {
	for _, timeout := range timeouts {
		var lock sync.Mutex
		atOnce(repeats, func() {
			ctx, cancel := context.WithTimeout(context.Background(), timeout*time.Millisecond)
			defer cancel()
			_, code := client.unaryIn(ctx, path("Hang"), []byte("never"))
			lock.Lock()
			defer lock.Unlock()
			addExpired(tally, code)
		})
	}
}

// addExpired counts a call whose deadline has passed: the server may have been first, and has cancelled it then.
func addExpired(tally *Tally, code int) {
	check("deadline", code == int(codes.DeadlineExceeded) || code == int(codes.Canceled), true)
	tally.add(path("Hang"), code, []int{5}, []int{})
}

func early(client Client, tally *Tally) {
	for range repeats {
		stream := client.stream("EarlyEnd")
		// No more than this: whether another one went out before the end came, nobody would know here.
		stream.send(message(100))
		stream.all("early end", packSum(1, 100))
		tally.add(path("EarlyEnd"), 0, []int{100}, []int{12})
	}
}
