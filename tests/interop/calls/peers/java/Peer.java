import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/** A server of plain bytes on grpc-java, for denials: {@code Peer serve HOST PORT} (../README.md). */
public final class Peer {
    private static final Map<String, Integer> handled = new TreeMap<>();

    private static final class Plain implements MethodDescriptor.Marshaller<byte[]> {
        @Override
        public InputStream stream(byte[] value) {
            return new ByteArrayInputStream(value);
        }

        @Override
        public byte[] parse(InputStream stream) {
            try {
                return stream.readAllBytes();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }

    private static void count(String method) {
        synchronized (handled) {
            handled.merge(method, 1, Integer::sum);
        }
    }

    private static MethodDescriptor<byte[], byte[]> method(MethodType type, String name) {
        return MethodDescriptor.<byte[], byte[]>newBuilder()
                .setType(type)
                .setFullMethodName("calls.Peer/" + name)
                .setRequestMarshaller(new Plain())
                .setResponseMarshaller(new Plain())
                .build();
    }

    private static void unary(byte[] request, StreamObserver<byte[]> answers) {
        count("Unary");
        answers.onNext(request);
        answers.onCompleted();
    }

    private static StreamObserver<byte[]> bidiStream(StreamObserver<byte[]> answers) {
        count("BidiStream");
        return new StreamObserver<>() {
            @Override
            public void onNext(byte[] message) {
                answers.onNext(message);
            }

            @Override
            public void onError(Throwable error) {}

            @Override
            public void onCompleted() {
                answers.onCompleted();
            }
        };
    }

    public static void main(String[] arguments) throws IOException, InterruptedException {
        ServerServiceDefinition service = ServerServiceDefinition.builder("calls.Peer")
                .addMethod(method(MethodType.UNARY, "Unary"), ServerCalls.asyncUnaryCall(Peer::unary))
                .addMethod(
                        method(MethodType.BIDI_STREAMING, "BidiStream"),
                        ServerCalls.asyncBidiStreamingCall(Peer::bidiStream))
                .build();
        InetSocketAddress address = new InetSocketAddress(arguments[1], Integer.parseInt(arguments[2]));
        Server server = NettyServerBuilder.forAddress(address).addService(service).build().start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                server.shutdown().awaitTermination(5, TimeUnit.SECONDS);
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
            synchronized (handled) {
                String listed = handled.entrySet().stream()
                        .map(each -> "\"" + each.getKey() + "\": " + each.getValue())
                        .collect(Collectors.joining(", "));
                System.out.println("{\"handled\": {" + listed + "}, \"cancelled\": 0, \"expired\": 0}");
            }
            Runtime.getRuntime().halt(0);
        }));
        server.awaitTermination();
    }
}
