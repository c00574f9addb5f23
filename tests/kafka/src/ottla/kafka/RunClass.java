package ottla.kafka;

import static org.junit.platform.engine.discovery.DiscoverySelectors.selectClass;
import static org.junit.platform.engine.discovery.DiscoverySelectors.selectMethod;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.reflect.Method;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.common.utils.Exit;
import org.junit.platform.commons.support.HierarchyTraversalMode;
import org.junit.platform.commons.support.ReflectionSupport;
import org.junit.platform.engine.DiscoverySelector;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.support.descriptor.ClassSource;
import org.junit.platform.engine.support.descriptor.MethodSource;
import org.junit.platform.launcher.EngineFilter;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/**
 * Runs one class of tests, or one method of it (CLASS#METHOD), and writes a line for each test when it is over: a class that is
 * stopped has its results all the same. The line: outcome, method, display name, seconds, why; between tabs.
 */
public final class RunClass {
    private RunClass() {}

    public static void main(String[] arguments) {
        String wanted = arguments[0];
        Path results = Path.of(arguments[1]);
        // Tools end the process; a test that calls one ends with it.
        Exit.setExitProcedure((code, message) -> {
            throw new IllegalStateException("exit code " + code + ": " + message);
        });
        Exit.setHaltProcedure((code, message) -> {
            throw new IllegalStateException("halt code " + code + ": " + message);
        });
        LauncherDiscoveryRequest request = LauncherDiscoveryRequestBuilder.request()
                .selectors(selectors(wanted))
                // Finds SkipNotServed and TimeLimit. A file of Kafka's has the place of JUnit's own.
                .configurationParameter("junit.jupiter.extensions.autodetection.enabled", "true")
                .filters(EngineFilter.includeEngines("junit-jupiter"))
                .build();
        LauncherFactory.create().execute(request, new Lines(results));
        // Threads that a test has left do not keep the process.
        Runtime.getRuntime().exit(0);
    }

    /** Where a method is named without its parameters, all of that name are run. */
    private static List<? extends DiscoverySelector> selectors(String wanted) {
        String[] parts = wanted.split("#");
        if (parts.length == 1) return List.of(selectClass(wanted));
        Class<?> type = ReflectionSupport.tryToLoadClass(parts[0]).getOrThrow(cause -> new IllegalArgumentException("no class " + parts[0], cause));
        List<Method> methods = ReflectionSupport.findMethods(type, method -> method.getName().equals(parts[1]), HierarchyTraversalMode.TOP_DOWN);
        // With its parameters, or a mistake, which JUnit then reports as a failure.
        if (methods.isEmpty()) return List.of(selectMethod(wanted));
        return methods.stream().map(method -> selectMethod(type, method)).toList();
    }

    private static final class Lines implements TestExecutionListener {
        private final Path results;
        private final Map<String, Long> begun = new ConcurrentHashMap<>();

        Lines(Path results) {
            this.results = results;
        }

        @Override
        public void executionStarted(TestIdentifier test) {
            begun.put(test.getUniqueId(), System.nanoTime());
            if (test.isTest()) write("begun", test, "");
        }

        @Override
        public void executionSkipped(TestIdentifier test, String why) {
            write("disabled", test, why);
        }

        @Override
        public void executionFinished(TestIdentifier test, TestExecutionResult result) {
            String why = result.getThrowable().map(Lines::told).orElse("");
            switch (result.getStatus()) {
                case SUCCESSFUL -> {
                    if (test.isTest()) write("passed", test, "");
                }
                case ABORTED -> write("skipped", test, why);
                case FAILED -> write("failed", test, why);
            }
        }

        private static String told(Throwable thrown) {
            StringBuilder text = new StringBuilder(thrown.toString());
            for (Throwable cause = thrown.getCause(); cause != null && text.length() < 2_000; cause = cause.getCause()) {
                text.append(" <- ").append(cause);
            }
            for (StackTraceElement at : thrown.getStackTrace()) {
                if (at.getClassName().endsWith("Test")) {
                    text.append(" @ ").append(at);
                    break;
                }
            }
            return text.length() > 2_000 ? text.substring(0, 2_000) : text.toString();
        }

        private void write(String outcome, TestIdentifier test, String why) {
            double seconds = (System.nanoTime() - begun.getOrDefault(test.getUniqueId(), System.nanoTime())) / 1e9;
            String method = test.getSource().map(source -> {
                if (source instanceof MethodSource of) return of.getMethodName();
                return source instanceof ClassSource ? "" : source.toString();
            }).orElse("");
            List<String> fields = List.of(outcome, method, test.getDisplayName(), "%.1f".formatted(seconds), why);
            String line = fields.stream().map(field -> field.replaceAll("[\\t\\r\\n]+", " ")).reduce((a, b) -> a + "\t" + b).get();
            try {
                Files.writeString(results, line + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
    }
}
