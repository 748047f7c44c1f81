import java.util.Collection;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartitionInfo;

/**
 * Whether this node has caught up with the leaders of its partitions since it started. Until then the next node must
 * not be restarted: writes would find too few copies in step. Once caught up, the question is not asked again: a copy
 * that falls behind later is a matter of alerts, not of traffic.
 */
final class InStep implements Runnable {
    private final Properties settings;
    private final int node;
    private volatile String obstacle = "it is not known yet which partitions are behind";

    private InStep(Properties settings) {
        this.settings = settings;
        this.node = Integer.parseInt(settings.getProperty("node.id"));
    }

    static InStep watch(Properties settings) {
        InStep watched = new InStep(settings);
        Thread thread = new Thread(watched, "in-step");
        thread.setDaemon(true);
        thread.start();
        return watched;
    }

    /** Why the node is not in step, or null. */
    String obstacle() {
        return obstacle;
    }

    @Override
    public void run() {
        try {
            while (obstacle != null) {
                TimeUnit.SECONDS.sleep(1);
                ask();
            }
        } catch (InterruptedException end) {
            Thread.currentThread().interrupt();
        }
    }

    /** Asks until the node is in step. A client can't be made before DNS knows the node's own name. */
    private void ask() throws InterruptedException {
        try (Admin admin = Admin.create(client())) {
            while ((obstacle = look(admin)) != null) TimeUnit.SECONDS.sleep(1);
        } catch (KafkaException error) {
            Throwable cause = error.getCause() == null ? error : error.getCause();
            obstacle = "the brokers cannot be asked yet: " + cause.getMessage();
        }
    }

    private String look(Admin admin) throws InterruptedException {
        try {
            Set<String> names = admin.listTopics(new ListTopicsOptions().listInternal(true)).names().get();
            return behind(admin.describeTopics(names).allTopicNames().get().values());
        } catch (ExecutionException error) {
            return "the brokers do not answer yet: " + error.getCause().getMessage();
        }
    }

    /** A partition without a leader can't be caught up with: waiting for it would keep a healthy node away. */
    private String behind(Collection<TopicDescription> topics) {
        for (TopicDescription topic : topics) {
            for (TopicPartitionInfo partition : topic.partitions()) {
                boolean led = partition.leader() != null && !partition.leader().isEmpty();
                boolean behind = has(partition.replicas()) && !has(partition.isr());
                if (led && behind) return "partition " + topic.name() + "-" + partition.partition() + " is behind";
            }
        }
        return null;
    }

    private boolean has(Collection<Node> nodes) {
        return nodes.stream().anyMatch(candidate -> candidate.id() == node);
    }

    /** Through the listener of the brokers, as one of them. */
    private Properties client() {
        String listener = settings.getProperty("inter.broker.listener.name");
        Properties properties = new Properties();
        for (String advertised : settings.getProperty("advertised.listeners").split(",")) {
            String[] parts = advertised.split("://", 2);
            if (parts[0].equals(listener)) properties.put("bootstrap.servers", parts[1]);
        }
        properties.put("security.protocol", "SSL");
        for (String name : Set.of("ssl.engine.factory.class", "mounted.certificate.dir", "ssl.enabled.protocols")) {
            properties.put(name, settings.getProperty(name));
        }
        properties.put("request.timeout.ms", "3000");
        properties.put("default.api.timeout.ms", "5000");
        return properties;
    }
}
