package ottla.kafka;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.kafka.common.message.DescribeClusterRequestData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.requests.AbstractRequest;
import org.apache.kafka.common.requests.AbstractResponse;
import org.apache.kafka.common.requests.DescribeClusterRequest;
import org.apache.kafka.common.requests.DescribeClusterResponse;
import org.apache.kafka.common.requests.MetadataRequest;
import org.apache.kafka.common.requests.MetadataResponse;
import org.apache.kafka.common.requests.RequestHeader;

/**
 * Single requests to one node. A socket of its own for each, and no thread: tests look for threads that are left, and a client would
 * ask whichever node it likes.
 */
final class Wire {
    private static final String HOST = "127.0.0.1";
    private static final int TIMEOUT_MS = 10_000;

    private Wire() {}

    private static AbstractResponse call(int port, ApiKeys api, AbstractRequest request) throws IOException {
        try (Socket socket = new Socket(HOST, port)) {
            socket.setSoTimeout(TIMEOUT_MS);
            RequestHeader header = new RequestHeader(api, request.version(), "kafka-tests", 1);
            ByteBuffer frame = request.serializeWithHeader(header);
            DataOutputStream out = new DataOutputStream(socket.getOutputStream());
            out.writeInt(frame.remaining());
            out.write(frame.array(), frame.arrayOffset() + frame.position(), frame.remaining());
            out.flush();
            DataInputStream in = new DataInputStream(socket.getInputStream());
            byte[] answer = new byte[in.readInt()];
            in.readFully(answer);
            return AbstractResponse.parseResponse(ByteBuffer.wrap(answer), header);
        }
    }

    /** What a node tells of topics; of all of them if `topics` is null. */
    static MetadataResponse metadata(int port, List<String> topics) throws IOException {
        MetadataRequest.Builder asked =
                topics == null ? MetadataRequest.Builder.allTopics() : new MetadataRequest.Builder(topics, false);
        return (MetadataResponse) call(port, ApiKeys.METADATA, asked.build((short) 12));
    }

    /** The brokers that a node shows, and the cluster's id. */
    static DescribeClusterResponse cluster(int port) throws IOException {
        DescribeClusterRequest.Builder asked = new DescribeClusterRequest.Builder(new DescribeClusterRequestData());
        return (DescribeClusterResponse) call(port, ApiKeys.DESCRIBE_CLUSTER, asked.build((short) 1));
    }

    /** True if a page of an admin port is answered with 200. */
    static boolean isOk(int port, String path) {
        try (Socket socket = new Socket(HOST, port)) {
            socket.setSoTimeout(TIMEOUT_MS);
            String request = "GET " + path + " HTTP/1.1\r\nHost: " + HOST + "\r\nConnection: close\r\n\r\n";
            socket.getOutputStream().write(request.getBytes(StandardCharsets.US_ASCII));
            byte[] head = socket.getInputStream().readNBytes(12);
            return new String(head, StandardCharsets.US_ASCII).equals("HTTP/1.1 200");
        } catch (IOException e) {
            return false;
        }
    }
}
