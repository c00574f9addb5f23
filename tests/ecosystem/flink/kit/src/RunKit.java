import org.junit.platform.engine.DiscoverySelector;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

import java.util.Arrays;

/**
 * Runs suites by JUnit.
 *
 * <p>Usage: RunKit CLASS|CLASS#METHOD... Prints a line a test, "test NAME PASSED|FAILED|SKIPPED WHY", with tabs between; WHY is the first
 * cause. A class that could not be begun is such a line too.
 */
public final class RunKit implements TestExecutionListener {
    private RunKit() {}

    public static void main(String[] args) {
        LauncherDiscoveryRequest request = LauncherDiscoveryRequestBuilder.request()
                .selectors(Arrays.stream(args).map(RunKit::selector).toList())
                .build();
        LauncherFactory.create().execute(request, new RunKit());
        // Threads of a MiniCluster may be left.
        System.exit(0);
    }

    private static DiscoverySelector selector(String name) {
        String[] parts = name.split("#");
        if (parts.length == 1) {
            return DiscoverySelectors.selectClass(name);
        }
        try {
            // What a suite's method is given, its name does not tell.
            Class<?> suite = Class.forName(parts[0]);
            return Arrays.stream(suite.getMethods())
                    .filter(method -> method.getName().equals(parts[1]))
                    .map(method -> DiscoverySelectors.selectMethod(suite, method))
                    .findFirst()
                    .orElseThrow();
        } catch (ClassNotFoundException failure) {
            throw new IllegalArgumentException(name, failure);
        }
    }

    private static Throwable first(Throwable thrown) {
        return thrown.getCause() == null ? thrown : first(thrown.getCause());
    }

    @Override
    public void executionSkipped(TestIdentifier test, String why) {
        print(test, "SKIPPED", why);
    }

    @Override
    public void executionFinished(TestIdentifier test, TestExecutionResult result) {
        String why = result.getThrowable().map(thrown -> first(thrown).toString()).orElse("");
        if (test.isTest() || result.getStatus() != TestExecutionResult.Status.SUCCESSFUL) {
            print(test, result.getStatus() == TestExecutionResult.Status.SUCCESSFUL ? "PASSED" : "FAILED", why);
            result.getThrowable().ifPresent(Throwable::printStackTrace);
        }
    }

    private static void print(TestIdentifier test, String outcome, String why) {
        // The class and the method stand in the identifier, what is peculiar to this run of it in the name shown.
        String name = test.getUniqueId().replaceAll(".*?\\[class:([^\\]]+)\\](?:/\\[test-template:(\\w+))?.*", "$1 $2");
        System.out.printf("test\t%s %s\t%s\t%s%n", name, test.getDisplayName(), outcome, why.lines().findFirst().orElse(""));
    }
}
