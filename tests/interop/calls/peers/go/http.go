package main

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"

	connectrpc "connectrpc.com/connect"
	"google.golang.org/grpc"
)

// overHTTP is gRPC behind Go's own HTTP/2: a method that is not known is refused in trailers after a header block.
func overHTTP() http.Handler {
	server := grpc.NewServer(serverOptions(nil)...)
	server.RegisterService(description(), nil)
	return server
}

// connectHandler is connect-go's: of a path that it has not got, the router says 404.
func connectHandler() http.Handler {
	router := http.NewServeMux()
	// Its answers are compressed for whoever takes that, however small they are.
	raw := connectrpc.WithHandlerOptions(connectrpc.WithCodec(connectCodec{}), connectrpc.WithCompressMinBytes(math.MaxInt))
	unary := func(_ context.Context, request *connectrpc.Request[[]byte]) (*connectrpc.Response[[]byte], error) {
		count(handled, "Unary")
		return connectrpc.NewResponse(request.Msg), nil
	}
	both := func(_ context.Context, stream *connectrpc.BidiStream[[]byte, []byte]) error {
		count(handled, "BidiStream")
		for {
			data, err := stream.Receive()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = stream.Send(data)
			}
			if err != nil {
				return err
			}
		}
	}
	router.Handle(path("Unary"), connectrpc.NewUnaryHandler(path("Unary"), unary, raw))
	router.Handle(path("BidiStream"), connectrpc.NewBidiStreamHandler(path("BidiStream"), both, raw))
	return router
}

// connectCodec takes messages as they are.
type connectCodec struct{}

func (connectCodec) Name() string { return "proto" }

func (connectCodec) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }

func (connectCodec) Unmarshal(data []byte, value any) error {
	*value.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func serveHTTP(host, port string, handler http.Handler) {
	over := ended()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler, Protocols: protocols}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
	must(err)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			must(err)
		}
	}()
	<-over
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
	show()
}
