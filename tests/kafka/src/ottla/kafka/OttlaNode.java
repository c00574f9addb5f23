package ottla.kafka;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.requests.MetadataResponse;

/** One node as a process, on ports and a directory of its own. May be stopped and started again. */
public final class OttlaNode {
    /** The program. The runner says where it is. */
    private static final String BINARY = System.getProperty("ottla.binary", "ottla");

    private static final long READY_MS_MAX = 60_000;
    private static final long STOPPED_MS_MAX = 30_000;
    /** Below those that the kernel gives to outgoing connections. */
    private static final int FIRST_PORT = 12_000, LAST_PORT = 32_000;

    public final int id;
    public final int port;
    final int admin;
    final int clusterPort;
    private final Path directory;
    private Process process;

    OttlaNode(int id, Path directory) {
        this.id = id;
        this.directory = directory;
        port = freePort();
        admin = freePort();
        clusterPort = freePort();
    }

    private static int freePort() {
        while (true) {
            int port = ThreadLocalRandom.current().nextInt(FIRST_PORT, LAST_PORT);
            try (ServerSocket tried = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
                return tried.getLocalPort();
            } catch (IOException taken) {
                // Another one, then.
            }
        }
    }

    /** Writes its settings. `seeds`: where the nodes of the cluster find each other, empty for one that is alone. */
    void configure(Map<String, String> given, String listener, String seeds) {
        Properties own = new Properties();
        own.putAll(given);
        own.setProperty("node.id", Integer.toString(id));
        // Kafka's harness binds a free port, and tells clients to come to it.
        own.setProperty("listeners", listener + "://localhost:" + port);
        own.putIfAbsent("listener.security.protocol.map", listener + ":PLAINTEXT");
        own.setProperty("ottla.admin.listener", "127.0.0.1:" + admin);
        if (!seeds.isEmpty()) {
            own.setProperty("ottla.cluster.listener", "127.0.0.1:" + clusterPort);
            own.setProperty("ottla.cluster.seeds", seeds);
        }
        // A node prepares segments; a test writes little.
        own.setProperty("ottla.log.segment.bytes", Integer.toString(16 << 20));
        try {
            Files.createDirectories(directory);
            StringBuilder text = new StringBuilder();
            new TreeMap<>(own).forEach((name, value) -> text.append(name).append('=').append(value).append('\n'));
            Files.writeString(directory.resolve("server.properties"), text);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Starts the process; {@link #isReady} says when it serves. */
    public void spawn() {
        if (isAlive()) return;
        File log = directory.resolve("ottla.log").toFile();
        ProcessBuilder builder = new ProcessBuilder(BINARY, "start", "--config", "server.properties");
        builder.directory(directory.toFile()).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.appendTo(log));
        try {
            process = builder.start();
        } catch (IOException e) {
            throw new UncheckedIOException(BINARY, e);
        }
    }

    public boolean isAlive() {
        return process != null && process.isAlive();
    }

    public boolean isReady() {
        return isAlive() && Wire.isOk(admin, "/readyz");
    }

    public void awaitReady() {
        long deadline = System.currentTimeMillis() + READY_MS_MAX;
        while (!isReady()) {
            if (!isAlive() || System.currentTimeMillis() > deadline) {
                throw new IllegalStateException("node " + id + " does not serve:\n" + tail());
            }
            pause();
        }
    }

    /** What the node tells of a topic, if it knows it. */
    Optional<MetadataResponse.TopicMetadata> topic(String name) throws IOException {
        return Wire.metadata(port, List.of(name)).topicMetadata().stream().filter(one -> one.error() == Errors.NONE).findFirst();
    }

    /** SIGTERM, as an operator stops a node. */
    public void stop() {
        if (!isAlive()) return;
        process.destroy();
        try {
            if (!process.waitFor(STOPPED_MS_MAX, TimeUnit.MILLISECONDS)) {
                throw new IllegalStateException("node " + id + " does not stop:\n" + tail());
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    /** SIGKILL: the test is over. What the node has said is kept, its directory is not. */
    void kill() {
        if (process == null) return;
        process.destroyForcibly();
        String kept = System.getProperty("ottla.log");
        if (kept == null) return;
        try {
            String said = "== node " + id + " on port " + port + "\n" + Files.readString(directory.resolve("ottla.log"));
            Files.writeString(Path.of(kept + ".nodes"), said, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException gone) {
            // A directory is removed once, and a cluster may be closed twice.
        }
    }

    static void pause() {
        try {
            Thread.sleep(20);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(e);
        }
    }

    /** The last lines of its log. */
    String tail() {
        try {
            String text = Files.readString(directory.resolve("ottla.log"));
            return text.substring(Math.max(0, text.length() - 2_000));
        } catch (IOException e) {
            return e.toString();
        }
    }
}
