package main

import (
	"context"
	"io"
	"math"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// wire is what grpc-go says of its own streams, those of its transparent retries among them.
type wire struct {
	streams  atomic.Int64
	sent     atomic.Int64 // bytes of messages as they are sent
	received atomic.Int64
}

func (wire *wire) HandleRPC(_ context.Context, event stats.RPCStats) {
	switch event := event.(type) {
	case *stats.OutHeader:
		wire.streams.Add(1)
	case *stats.OutPayload:
		wire.sent.Add(int64(event.CompressedLength))
	case *stats.InPayload:
		wire.received.Add(int64(event.CompressedLength))
	}
}

func (*wire) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*wire) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*wire) HandleConn(context.Context, stats.ConnStats)                       {}

// Client is a channel and what went over it.
type Client struct {
	*grpc.ClientConn
	wire *wire
}

func connect(host, port string) Client {
	seen := &wire{}
	wait := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, MaxDelay: 100 * time.Millisecond}
	channel, err := grpc.NewClient(
		"passthrough:///"+net.JoinHostPort(host, port),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: wait, MinConnectTimeout: time.Second}),
		grpc.WithStatsHandler(seen),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32),
		),
	)
	must(err)
	return Client{channel, seen}
}

func codeOf(err error) int {
	return int(status.Code(err))
}

// unary is a call's answer and its status.
func (client Client) unary(name string, request []byte, options ...grpc.CallOption) ([]byte, int) {
	return client.unaryIn(context.Background(), name, request, options...)
}

func (client Client) unaryIn(
	ctx context.Context, name string, request []byte, options ...grpc.CallOption,
) ([]byte, int) {
	var answer []byte
	err := client.Invoke(ctx, name, request, &answer, options...)
	return answer, codeOf(err)
}

// Stream is a call with streams of messages.
type Stream struct {
	grpc.ClientStream
	cancel context.CancelFunc
}

// stream begins a call; both its sides may be streams.
func (client Client) stream(name string, options ...grpc.CallOption) Stream {
	ctx, cancel := context.WithCancel(context.Background())
	description := &grpc.StreamDesc{StreamName: name, ServerStreams: true, ClientStreams: true}
	made, err := client.NewStream(ctx, description, path(name), options...)
	must(err)
	return Stream{made, cancel}
}

// requested begins a call with one request.
func (client Client) requested(name string, request []byte) Stream {
	stream := client.stream(name)
	stream.send(request)
	must(stream.CloseSend())
	return stream
}

func (stream Stream) send(data []byte) {
	must(stream.SendMsg(data))
}

// next is the next message; nil and the status: there are no more.
func (stream Stream) next() ([]byte, int) {
	data := []byte{}
	err := stream.RecvMsg(&data)
	if err == nil {
		return data, 0
	}
	stream.cancel() // it has ended
	if err == io.EOF {
		return nil, 0
	}
	return nil, codeOf(err)
}

// all checks that these answers come, and that the call is well after them.
func (stream Stream) all(what string, expected ...[]byte) {
	for _, each := range expected {
		data, _ := stream.next()
		check(what, data, each)
	}
	data, code := stream.next()
	check(what, data == nil && code == 0, true)
}
