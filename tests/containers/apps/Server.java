import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

/** A GET is answered with the pid; a POST begins to be answered, and ends with what it has sent. SIGTERM finishes all that. */
public class Server {
    public static void main(String[] arguments) throws Exception {
        var server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", exchange -> {
            try (exchange) {
                exchange.sendResponseHeaders(200, 0);
                var response = exchange.getResponseBody();
                if (exchange.getRequestMethod().equals("GET")) {
                    response.write(("pid " + ProcessHandle.current().pid() + "\n").getBytes());
                } else {
                    response.write("begun\n".getBytes());
                    response.flush();
                    exchange.getRequestBody().transferTo(response);
                }
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            System.out.println("draining");
            server.stop(5);
        }));
        server.start();
        System.out.println("listening");
    }
}
