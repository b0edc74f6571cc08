package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // answers are compressed as their requests are
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	grace = time.Second
	late  = 50 * time.Millisecond
)

var (
	lock    sync.Mutex
	handled = map[string]int{}
	endings = map[string]int{}
)

func count(table map[string]int, name string) {
	lock.Lock()
	defer lock.Unlock()
	table[name]++
}

func asked(number byte) error {
	if number == 0 {
		return nil
	}
	return status.Error(codes.Code(number), "as asked for")
}

var unaryMethods = map[string]func(context.Context, []byte) ([]byte, error){
	"Unary": func(_ context.Context, request []byte) ([]byte, error) {
		return request, nil
	},
	"Fail": func(_ context.Context, request []byte) ([]byte, error) {
		return []byte{}, asked(request[0])
	},
	"Crash": func(context.Context, []byte) ([]byte, error) {
		return nil, errors.New("on purpose") // a panic would be the end of the server
	},
	"Metadata": func(ctx context.Context, _ []byte) ([]byte, error) {
		all, _ := metadata.FromIncomingContext(ctx)
		found := metadataOurs(all)
		if err := errors.Join(grpc.SendHeader(ctx, found), grpc.SetTrailer(ctx, found)); err != nil {
			return nil, err
		}
		return packNumber(valuesIn(found)), nil
	},
	"Slow": func(ctx context.Context, request []byte) ([]byte, error) {
		select {
		case <-time.After(milliseconds(unpackNumber(request))):
			return request, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	},
	"Hang": func(ctx context.Context, _ []byte) ([]byte, error) {
		if err := grpc.SendHeader(ctx, nil); err != nil {
			return nil, err
		}
		<-ctx.Done()
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < late {
			count(endings, "expired")
		} else {
			count(endings, "cancelled")
		}
		return nil, status.FromContextError(ctx.Err()).Err()
	},
}

var streamMethods = map[string]func(grpc.ServerStream) error{
	"ServerStream": func(stream grpc.ServerStream) error {
		request, err := received(stream)
		if err != nil {
			return err
		}
		data := message(unpackNumber(request[4:]))
		for range unpackNumber(request) {
			if err := stream.SendMsg(data); err != nil {
				return err
			}
		}
		return nil
	},
	"ClientStream": func(stream grpc.ServerStream) error {
		count, size := 0, 0
		for {
			data, err := received(stream)
			if err == io.EOF {
				return stream.SendMsg(packSum(count, size))
			}
			if err != nil {
				return err
			}
			count, size = count+1, size+len(data)
		}
	},
	"BidiStream": func(stream grpc.ServerStream) error {
		// What gets no shorter is sent as it is: grpc-go does not look.
		if err := grpc.SetSendCompressor(stream.Context(), "identity"); err != nil {
			return err
		}
		for {
			data, err := received(stream)
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = stream.SendMsg(data)
			}
			if err != nil {
				return err
			}
		}
	},
	"FailLate": func(stream grpc.ServerStream) error {
		request, err := received(stream)
		if err == nil {
			err = stream.SendMsg([]byte("late"))
		}
		if err != nil {
			return err
		}
		return asked(request[0])
	},
	"EarlyEnd": func(stream grpc.ServerStream) error {
		data, err := received(stream)
		if err != nil {
			return err
		}
		return stream.SendMsg(packSum(1, len(data)))
	},
}

func received(stream grpc.ServerStream) ([]byte, error) {
	var data []byte
	err := stream.RecvMsg(&data)
	return data, err
}

func valuesIn(found metadata.MD) int {
	count := 0
	for _, values := range found {
		count += len(values)
	}
	return count
}

func description() *grpc.ServiceDesc {
	found := &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
	for name, method := range unaryMethods {
		handler := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var request []byte
			if err := decode(&request); err != nil {
				return nil, err
			}
			count(handled, name)
			return method(ctx, request)
		}
		found.Methods = append(found.Methods, grpc.MethodDesc{MethodName: name, Handler: handler})
	}
	for name, method := range streamMethods {
		handler := func(_ any, stream grpc.ServerStream) error {
			count(handled, name)
			return method(stream)
		}
		// To the server they are all alike.
		stream := grpc.StreamDesc{StreamName: name, Handler: handler, ServerStreams: true, ClientStreams: true}
		found.Streams = append(found.Streams, stream)
	}
	return found
}

func serverOptions(options map[string]int) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodec(codec{}),
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.MaxSendMsgSize(math.MaxInt32),
		// Zero stands for what it is without.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      milliseconds(options["grpc.max_connection_age_ms"]),
			MaxConnectionAgeGrace: milliseconds(options["grpc.max_connection_age_grace_ms"]),
			Time:                  milliseconds(options["grpc.keepalive_time_ms"]),
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             milliseconds(options["grpc.http2.min_ping_interval_without_data_ms"]),
			PermitWithoutStream: options["grpc.keepalive_permit_without_calls"] != 0,
		}),
	}
}

func serve(host, port string, words []string) {
	options, _ := splitOptions(words)
	server := grpc.NewServer(serverOptions(options)...)
	server.RegisterService(description(), nil)
	over := ended()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
	must(err)
	go func() { must(server.Serve(listener)) }()
	<-over
	timer := time.AfterFunc(grace, server.Stop)
	server.GracefulStop()
	timer.Stop()
	show()
}

// ended tells when the server is to stop.
func ended() <-chan os.Signal {
	over := make(chan os.Signal, 1)
	signal.Notify(over, syscall.SIGTERM)
	return over
}

func show() {
	lock.Lock()
	defer lock.Unlock()
	printed, err := json.Marshal(map[string]any{
		"handled": handled, "cancelled": endings["cancelled"], "expired": endings["expired"],
	})
	must(err)
	fmt.Println(string(printed))
}
