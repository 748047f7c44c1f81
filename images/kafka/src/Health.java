import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Set;
import java.util.concurrent.Executors;
import javax.management.JMException;
import javax.management.MBeanServer;
import javax.management.ObjectName;

/**
 * What the kubelet asks, answered from Kafka's own measurements.
 * {@code /healthz}: the process lives. {@code /readyz}: the broker is running, knows the leader of the metadata quorum
 * and has caught up with the leaders of its partitions.
 */
final class Health {
    private static final MBeanServer BEANS = ManagementFactory.getPlatformMBeanServer();
    /** Broker states: https://github.com/apache/kafka/blob/4.3.1/metadata/src/main/java/org/apache/kafka/metadata/BrokerState.java */
    private static final int RUNNING = 3;
    /** States of a member of the quorum that follows or leads it. */
    private static final Set<String> IN_QUORUM = Set.of("leader", "follower");

    private Health() {}

    static void serve(int port, InStep inStep) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(port), 16);
        server.setExecutor(Executors.newSingleThreadExecutor(task -> {
            Thread thread = new Thread(task, "health");
            thread.setDaemon(true);
            return thread;
        }));
        server.createContext("/healthz", exchange -> answer(exchange, null));
        server.createContext("/readyz", exchange -> answer(exchange, obstacle(inStep)));
        server.start();
    }

    /** Why the broker should get no traffic, or null. */
    private static String obstacle(InStep inStep) {
        try {
            Object state = read("kafka.server:type=KafkaServer,name=BrokerState", "Value");
            if (((Number) state).intValue() != RUNNING) return "the broker is not running: state " + state;
            Object role = read("kafka.server:type=raft-metrics", "current-state");
            if (!IN_QUORUM.contains(role)) return "the node is not in the metadata quorum: " + role;
            Object leader = read("kafka.server:type=raft-metrics", "current-leader");
            if (((Number) leader).intValue() < 0) return "the metadata quorum has no leader";
            return inStep.obstacle();
        } catch (JMException absent) {
            return "the broker is starting: " + absent.getMessage() + " is not measured yet";
        }
    }

    private static Object read(String bean, String attribute) throws JMException {
        return BEANS.getAttribute(new ObjectName(bean), attribute);
    }

    private static void answer(HttpExchange exchange, String obstacle) throws IOException {
        byte[] body = ((obstacle == null ? "ok" : obstacle) + "\n").getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(obstacle == null ? 200 : 503, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }
}
