package ottla.kafka;

import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.extension.LifecycleMethodExecutionExceptionHandler;
import org.junit.jupiter.api.extension.TestExecutionExceptionHandler;
import org.opentest4j.TestAbortedException;

/** Skips a test that needs what is not served, wherever it asked for it. JUnit finds this class by itself. */
public final class SkipNotServed implements TestExecutionExceptionHandler, LifecycleMethodExecutionExceptionHandler {
    /** What skips a test, where that is not served. */
    public static TestAbortedException skipped(NotServed missing) {
        return new TestAbortedException(missing.getMessage(), missing);
    }

    private static Throwable judged(Throwable thrown) {
        NotServed found = NotServed.in(thrown);
        return found == null ? thrown : skipped(found);
    }

    @Override
    public void handleTestExecutionException(ExtensionContext context, Throwable thrown) throws Throwable {
        throw judged(thrown);
    }

    @Override
    public void handleBeforeAllMethodExecutionException(ExtensionContext context, Throwable thrown) throws Throwable {
        throw judged(thrown);
    }

    @Override
    public void handleBeforeEachMethodExecutionException(ExtensionContext context, Throwable thrown) throws Throwable {
        throw judged(thrown);
    }

    @Override
    public void handleAfterEachMethodExecutionException(ExtensionContext context, Throwable thrown) throws Throwable {
        throw judged(thrown);
    }

    @Override
    public void handleAfterAllMethodExecutionException(ExtensionContext context, Throwable thrown) throws Throwable {
        throw judged(thrown);
    }
}
