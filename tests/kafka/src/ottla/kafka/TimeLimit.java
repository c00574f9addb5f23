package ottla.kafka;

import java.lang.reflect.Method;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.extension.InvocationInterceptor;
import org.junit.jupiter.api.extension.ReflectiveInvocationContext;

/**
 * Ends a test, or its setup, that waits without a limit of its own, so that those after it are run: some wait for a group whose protocol is not
 * served, and their classes have the time of all their tests together. JUnit finds this class by itself.
 */
public final class TimeLimit implements InvocationInterceptor {
    private static final int SECONDS_MAX = 180;
    /** A wait that swallows the interrupt is interrupted again. */
    private static final int AGAIN_SECONDS = 5;

    private static final ScheduledThreadPoolExecutor TIMER = new ScheduledThreadPoolExecutor(1, work -> {
        Thread thread = new Thread(work, "time limit");
        thread.setDaemon(true);
        return thread;
    });

    static {
        // Kafka's harness takes a thread that begins during a test for one that leaks.
        TIMER.prestartAllCoreThreads();
    }

    @Override
    public void interceptBeforeAllMethod(
            Invocation<Void> setup, ReflectiveInvocationContext<Method> called, ExtensionContext context) throws Throwable {
        limited(setup);
    }

    @Override
    public void interceptBeforeEachMethod(
            Invocation<Void> setup, ReflectiveInvocationContext<Method> called, ExtensionContext context) throws Throwable {
        limited(setup);
    }

    @Override
    public void interceptTestMethod(
            Invocation<Void> test, ReflectiveInvocationContext<Method> called, ExtensionContext context) throws Throwable {
        limited(test);
    }

    @Override
    public void interceptTestTemplateMethod(
            Invocation<Void> test, ReflectiveInvocationContext<Method> called, ExtensionContext context) throws Throwable {
        limited(test);
    }

    private static void limited(Invocation<Void> test) throws Throwable {
        Thread runner = Thread.currentThread();
        AtomicBoolean late = new AtomicBoolean();
        Runnable end = () -> {
            late.set(true);
            runner.interrupt();
        };
        Future<?> timer = TIMER.scheduleAtFixedRate(end, SECONDS_MAX, AGAIN_SECONDS, TimeUnit.SECONDS);
        try {
            test.proceed();
        } catch (Throwable thrown) {
            throw late.get() ? new AssertionError("ended after " + SECONDS_MAX + " s", thrown) : thrown;
        } finally {
            timer.cancel(false);
            if (late.get()) Thread.interrupted();
        }
    }
}
