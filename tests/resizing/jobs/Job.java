import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.atomic.AtomicLong;

/**
 * What both jobs have in common: the form of records, and what the job tells the test.
 *
 * <p>A record is {@code NUMBER KEY TIME}, its time in milliseconds. The bell comes after all others, in each partition, from a time at
 * which every window is closed; it is in no result. A result is {@code COUNT SUM}, of the numbers, with the key {@code KEY@START} of its
 * window. Printed: {@code read COUNT} as long as it grows.
 */
final class Job {
    static final long WINDOW_MS = 5000;
    static final String BELL = "bell";
    static final AtomicLong READ = new AtomicLong();
    private static final long LOOK_MS = 50;

    private Job() {}

    static long number(String record) {
        return Long.parseLong(record.split(" ")[0]);
    }

    static String key(String record) {
        return record.split(" ")[1];
    }

    static long time(String record) {
        return Long.parseLong(record.split(" ")[2]);
    }

    static boolean isBell(String record) {
        return key(record).equals(BELL);
    }

    static void say(String what) {
        System.out.println(what);
        System.out.flush();
    }

    /** Tells how many records were read, until the file is there that ends the job. */
    static void tellUntilStopped(Path stop) throws InterruptedException {
        long told = 0;
        while (!Files.exists(stop)) {
            long read = READ.get();
            if (read != told) {
                say("read " + read);
                told = read;
            }
            Thread.sleep(LOOK_MS);
        }
    }
}
