package ottla.kafka;

/**
 * A test asks for what a cluster of processes cannot give it: an object inside a broker, a controller, a plug-in of the JVM. An
 * Error, since tests wait in loops that swallow exceptions. Whoever meets it skips the test, see {@link SkipNotServed}.
 */
public final class NotServed extends Error {
    private static final long serialVersionUID = 1L;

    /** What is missing, in the words that docs/kafka-tests.md groups skipped tests by. */
    public NotServed(String what) {
        super("not served: " + what);
    }

    /** The first of these among an error and its causes. */
    static NotServed in(Throwable thrown) {
        for (Throwable at = thrown; at != null; at = at.getCause()) {
            if (at instanceof NotServed found) return found;
            for (Throwable beside : at.getSuppressed()) {
                if (beside instanceof NotServed found) return found;
            }
        }
        return null;
    }
}
