import io.pyroscope.labels.v2.LabelsSet;
import io.pyroscope.labels.v2.Pyroscope.LabelsWrapper;

/** Two hot methods of known cost, and steady allocation. Usage: Demo SECONDS, and `labels` if the agent is attached. */
public class Demo {
    static volatile long sink;
    static volatile byte[] kept;

    static void spin(long units) {
        long total = 0;
        for (long i = 0; i < units * 100_000; i++) {
            total += i % 7;
        }
        sink += total;
    }

    static void parseOrders() {
        spin(30);
        kept = new byte[100_000];
    }

    static void renderReport() {
        spin(10);
    }

    public static void main(String[] arguments) {
        long end = System.nanoTime() + Long.parseLong(arguments[0]) * 1_000_000_000L;
        boolean hasLabels = arguments.length > 1;
        while (System.nanoTime() < end) {
            if (hasLabels) {
                LabelsWrapper.run(new LabelsSet("endpoint", "/orders"), Demo::parseOrders);
                LabelsWrapper.run(new LabelsSet("endpoint", "/report"), Demo::renderReport);
            } else {
                parseOrders();
                renderReport();
            }
        }
    }
}
