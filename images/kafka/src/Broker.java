import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.Reader;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/**
 * Starts one Kafka node: settles its settings, formats its storage when that is new, serves its health, runs Kafka.
 * All in one process: the administrator's password goes from a mounted file to the storage tool within memory, never
 * through a command line, and no second JVM has to start.
 *
 * Usage: {@code java Broker <server.properties>}, with the variables NODE_ID (stands for {@code @NODE_ID@} in the file),
 * CLUSTER_ID, ADMIN_DIR (files username, password) and HEALTH_PORT.
 */
public final class Broker {
    private Broker() {}

    public static void main(String[] arguments) throws Exception {
        try {
            if (arguments.length != 1) throw new Refusal("one argument is needed: the path of server.properties");
            Properties settings = settle(Path.of(arguments[0]));
            Path file = write(settings);
            format(file);
            Health.serve(Integer.parseInt(variable("HEALTH_PORT")), InStep.watch(settings));
            kafka.Kafka.main(new String[] {file.toString()});
        } catch (Refusal refusal) {
            System.err.println(refusal.getMessage());
            System.exit(1);
        } catch (NoSuchFileException absent) {
            System.err.println(absent.getMessage() + " is not there; mount the ConfigMap or Secret that holds it");
            System.exit(1);
        }
    }

    /** The settings of this node: the mounted file is the same for every node. */
    private static Properties settle(Path mounted) throws IOException {
        String node = variable("NODE_ID");
        Properties properties = new Properties();
        try (Reader reader = Files.newBufferedReader(mounted)) {
            properties.load(reader);
        }
        properties.replaceAll((key, value) -> value.toString().replace("@NODE_ID@", node));
        return properties;
    }

    private static Path write(Properties properties) throws IOException {
        Path file = Files.createTempFile("server-", ".properties");
        try (Writer writer = Files.newBufferedWriter(file)) {
            properties.store(writer, null);
        }
        return file;
    }

    /** Repeatable: formatted storage is left as it is, and a half-formatted one is done again. */
    private static void format(Path settings) throws IOException {
        Path admin = Path.of(variable("ADMIN_DIR"));
        String name = secret(admin.resolve("username"));
        String password = secret(admin.resolve("password"));
        String credential = "SCRAM-SHA-512=[name=\"" + name + "\",password=\"" + password + "\"]";
        List<String> command = new ArrayList<>(List.of("format", "--ignore-formatted"));
        command.addAll(List.of("--config", settings.toString(), "--cluster-id=" + variable("CLUSTER_ID")));
        command.addAll(List.of("--add-scram", credential));
        // What the tool says is not passed on: it writes out the first records, and with them the credential.
        PrintStream silent = new PrintStream(OutputStream.nullOutputStream());
        String reason;
        try {
            int code = kafka.tools.StorageTool.execute(command.toArray(String[]::new), silent);
            if (code == 0) return;
            reason = "exit code " + code;
        } catch (Exception error) {
            reason = String.valueOf(error.getMessage()).replace(password, "<password>");
        }
        throw new Refusal("storage can't be formatted: " + reason + "; look at the volume and at the settings");
    }

    private static String secret(Path file) throws IOException {
        String value = Files.readString(file);
        if (value.matches("[A-Za-z0-9._-]+")) return value;
        throw new Refusal(file + " is empty or has characters other than A-Z a-z 0-9 . _ -; generate the Secret again");
    }

    private static String variable(String name) {
        String value = System.getenv(name);
        if (value != null && !value.isEmpty()) return value;
        throw new Refusal("variable " + name + " is not set; set it on the container");
    }

    /** What a person can mend; shown without a stack trace. */
    private static final class Refusal extends RuntimeException {
        private static final long serialVersionUID = 1;

        Refusal(String message) {
            super(message);
        }
    }
}
