import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.net.ssl.SSLEngine;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.common.security.auth.SslEngineFactory;
import org.apache.kafka.common.security.ssl.DefaultSslEngineFactory;

/**
 * TLS from the PEM files of a mounted Secret (tls.crt, tls.key, ca.crt), read again when the kubelet has renewed them:
 * new connections then use the new certificate, and no broker has to restart. Kafka itself reads its files once.
 * The folder is the setting {@code mounted.certificate.dir}. Everything else is Kafka's own implementation.
 */
public final class MountedCertificate implements SslEngineFactory {
    private static final String FOLDER = "mounted.certificate.dir";
    /** How long the files are trusted without another look, in nanoseconds. */
    private static final long LOOK_EVERY = 5_000_000_000L;

    private Map<String, ?> settings = Map.of();
    private Path folder;
    private List<String> pem = List.of();
    private long looked;
    private DefaultSslEngineFactory current;

    @Override
    public synchronized void configure(Map<String, ?> configs) {
        Object value = configs.get(FOLDER);
        if (value == null) throw new IllegalArgumentException(FOLDER + " is not set; name the folder of tls.crt");
        settings = configs;
        folder = Path.of(value.toString());
        load(read());
    }

    @Override
    public SSLEngine createClientSslEngine(String host, int port, String endpointIdentification) {
        return latest().createClientSslEngine(host, port, endpointIdentification);
    }

    @Override
    public SSLEngine createServerSslEngine(String host, int port) {
        return latest().createServerSslEngine(host, port);
    }

    @Override
    public boolean shouldBeRebuilt(Map<String, Object> configs) {
        return false;
    }

    @Override
    public Set<String> reconfigurableConfigs() {
        return Set.of();
    }

    @Override
    public KeyStore keystore() {
        return latest().keystore();
    }

    @Override
    public KeyStore truststore() {
        return latest().truststore();
    }

    @Override
    public synchronized void close() {
        current.close();
    }

    private synchronized DefaultSslEngineFactory latest() {
        if (System.nanoTime() - looked > LOOK_EVERY) {
            refresh();
        }
        return current;
    }

    /** What can't be used changes nothing: connections go on with the certificate that was good until now. */
    private void refresh() {
        try {
            List<String> found = read();
            if (!found.equals(pem)) load(found);
        } catch (RuntimeException error) {
            System.err.println("the certificate stays as it was, the new one can't be used: " + error);
        }
    }

    private void load(List<String> found) {
        Map<String, Object> configs = new HashMap<>(settings);
        configs.put("ssl.keystore.type", "PEM");
        configs.put("ssl.keystore.certificate.chain", new Password(found.get(0)));
        configs.put("ssl.keystore.key", new Password(found.get(1)));
        configs.put("ssl.truststore.type", "PEM");
        configs.put("ssl.truststore.certificates", new Password(found.get(2)));
        DefaultSslEngineFactory next = new DefaultSslEngineFactory();
        next.configure(configs);
        pem = found;
        current = next;
    }

    private List<String> read() {
        looked = System.nanoTime();
        try {
            // The kubelet swaps this link when all files are renewed: what it leads to belongs together.
            Path swapped = folder.resolve("..data");
            Path files = Files.exists(swapped) ? swapped.toRealPath() : folder;
            return List.of(text(files, "tls.crt"), text(files, "tls.key"), text(files, "ca.crt"));
        } catch (IOException error) {
            throw new UncheckedIOException("certificate in " + folder + " can't be read; mount its Secret", error);
        }
    }

    private static String text(Path files, String name) throws IOException {
        return Files.readString(files.resolve(name));
    }
}
