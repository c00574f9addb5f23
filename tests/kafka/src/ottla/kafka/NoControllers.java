package ottla.kafka;

import java.util.AbstractMap;
import java.util.AbstractSet;
import java.util.Iterator;
import java.util.Map;
import java.util.Set;
import kafka.server.ControllerServer;

/**
 * The KRaft controllers of a cluster that has none. Helpers of Kafka's tests wait until each controller shows what the brokers
 * show: for none there is nothing to wait for. A test that asks for one of them looks into it, and is skipped.
 */
public final class NoControllers extends AbstractMap<Integer, ControllerServer> {
    private static final class None implements Iterator<Map.Entry<Integer, ControllerServer>> {
        @Override
        public boolean hasNext() {
            return false;
        }

        @Override
        public Map.Entry<Integer, ControllerServer> next() {
            throw new NotServed("KRaft controllers");
        }
    }

    @Override
    public ControllerServer get(Object id) {
        throw new NotServed("KRaft controllers");
    }

    @Override
    public Set<Map.Entry<Integer, ControllerServer>> entrySet() {
        return new AbstractSet<>() {
            @Override
            public Iterator<Map.Entry<Integer, ControllerServer>> iterator() {
                return new None();
            }

            @Override
            public int size() {
                return 0;
            }
        };
    }
}
