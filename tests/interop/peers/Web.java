// Java's own HTTP server and client.
//   java Web.java serve PORT FOLDER
//   java Web.java fetch PORT FOLDER      prints {"requests": n}
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;

public class Web {
    static Path folder;

    static String sha256(byte[] data) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
        } catch (Exception error) {
            throw new RuntimeException(error);
        }
    }

    static void answer(HttpExchange exchange) throws IOException {
        byte[] body = exchange.getRequestBody().readAllBytes();
        byte[] reply = exchange.getRequestMethod().equals("PUT")
            ? sha256(body).getBytes()
            : Files.readAllBytes(folder.resolve(exchange.getRequestURI().getPath().substring(1)));
        exchange.sendResponseHeaders(200, reply.length);
        try (var out = exchange.getResponseBody()) {
            out.write(reply);
        }
    }

    static CompletableFuture<Void> one(HttpClient client, String url, String name) {
        try {
            byte[] content = Files.readAllBytes(folder.resolve(name));
            String sum = sha256(content);
            var get = HttpRequest.newBuilder(URI.create(url + "/" + name)).build();
            var put = HttpRequest.newBuilder(URI.create(url + "/sum"))
                .PUT(HttpRequest.BodyPublishers.ofByteArray(content)).build();
            return client.sendAsync(get, HttpResponse.BodyHandlers.ofByteArray()).thenCompose(got -> {
                if (!sha256(got.body()).equals(sum)) throw new RuntimeException("GET " + name + ": wrong bytes");
                return client.sendAsync(put, HttpResponse.BodyHandlers.ofString());
            }).thenAccept(got -> {
                if (!got.body().equals(sum)) throw new RuntimeException("PUT " + name + ": wrong bytes");
            });
        } catch (IOException error) {
            throw new RuntimeException(error);
        }
    }

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[1]);
        folder = Path.of(arguments[2]);
        if (arguments[0].equals("serve")) {
            var server = HttpServer.create(new InetSocketAddress(port), 64);
            server.createContext("/", Web::answer);
            server.setExecutor(Executors.newFixedThreadPool(8));
            server.start();
            return;
        }
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        String url = "http://127.0.0.1:" + port;
        int requests = 0;
        for (int i = 0; i < 50; i++, requests += 2) one(client, url, "small").join();
        List<CompletableFuture<Void>> all = new ArrayList<>();
        for (int i = 0; i < 20; i++)
            for (String name : List.of("tiny", "small", "medium")) all.add(one(client, url, name));
        for (int i = 0; i < 2; i++) all.add(one(client, url, "large"));
        for (var each : all) {
            each.join();
            requests += 2;
        }
        System.out.println("{\"requests\": " + requests + "}");
        System.exit(0);
    }
}
