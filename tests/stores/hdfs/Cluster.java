import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.SafeModeAction;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.HdfsConfiguration;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.MiniDFSCluster.DataNodeProperties;
import org.apache.hadoop.hdfs.protocol.HdfsConstants;

/**
 * A HDFS in one process, in the directory of the first argument, with as many datanodes as the
 * second one says, which use as many bytes of their disk as the third one says, all of it for 0. Prints "port N" when it is up. Each line of its standard input is one command,
 * answered by a line "ok", "ok" and an answer, or "error" and a reason. It ends, and all of the
 * HDFS with it, when its input ends.
 */
public final class Cluster {
    private final MiniDFSCluster cluster;
    private final Deque<DataNodeProperties> stopped = new ArrayDeque<>();
    private final Map<String, FSDataOutputStream> writers = new HashMap<>();

    private Cluster(String directory, int datanodes, long capacity) throws Exception {
        HdfsConfiguration conf = new HdfsConfiguration();
        conf.set("dfs.namenode.replication.min", "1");
        // Dead datanodes are found in seconds, not in ten minutes.
        conf.set("dfs.heartbeat.interval", "1");
        conf.set("dfs.namenode.heartbeat.recheck-interval", "1000");
        conf.set("dfs.namenode.avoid.write.stale.datanode", "true");
        conf.set("dfs.namenode.avoid.read.stale.datanode", "true");
        conf.set("dfs.namenode.stale.datanode.interval", "3000");
        conf.set("dfs.namenode.safemode.extension", "0");
        if (capacity > 0) {
            long rest = new File(directory).getAbsoluteFile().getParentFile().getTotalSpace() - capacity;
            conf.set("dfs.datanode.du.reserved", String.valueOf(rest));
        }
        cluster = new MiniDFSCluster.Builder(conf, new File(directory))
            .numDataNodes(datanodes)
            .build();
        cluster.waitActive();
    }

    public static void main(String[] args) throws Exception {
        Cluster main = new Cluster(args[0], Integer.parseInt(args[1]), Long.parseLong(args[2]));
        System.out.println("port " + main.cluster.getNameNodePort());
        BufferedReader commands =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            try {
                System.out.println(("ok " + main.obey(line.split(" "))).trim());
            } catch (Exception error) {
                System.out.println("error " + String.valueOf(error).replace('\n', ' '));
            }
        }
        // Nothing of it is to be kept, and a shutdown in good order takes seconds.
        Runtime.getRuntime().halt(0);
    }

    private String obey(String[] words) throws Exception {
        // Not while there is no namenode, which has none.
        DistributedFileSystem files = cluster.getNameNode(0) == null ? null : cluster.getFileSystem();
        switch (words[0]) {
            case "stop-datanode":
                stopped.push(cluster.stopDataNode(Integer.parseInt(words[1])));
                return "";
            case "start-datanodes":  // all that were stopped
                while (!stopped.isEmpty()) {
                    cluster.restartDataNode(stopped.pop(), true);
                }
                cluster.waitActive();
                return "";
            case "stop-namenode":
                cluster.shutdownNameNode(0);
                return "";
            case "start-namenode":
                cluster.restartNameNode(0, true);
                return "";
            case "quota":  // path, names, bytes
                files.setQuota(new Path(words[1]), quota(words[2]), quota(words[3]));
                return "";
            case "mkdir":  // path, mode, owner
                files.mkdirs(new Path(words[1]));
                files.setPermission(new Path(words[1]), new FsPermission(words[2]));
                files.setOwner(new Path(words[1]), words[3], words[3]);
                return "";
            case "delete":
                return String.valueOf(files.delete(new Path(words[1]), true));
            case "write":  // path, bytes: begins a file, and holds its lease from then on
                FSDataOutputStream writer = files.create(new Path(words[1]), true);
                writer.write(new byte[Integer.parseInt(words[2])]);
                writer.hflush();
                writers.put(words[1], writer);
                return "";
            case "replication":
                return String.valueOf(files.getFileStatus(new Path(words[1])).getReplication());
            case "block-bytes":
                return String.valueOf(files.getFileStatus(new Path(words[1])).getBlockSize());
            case "safe-mode":
                files.setSafeMode("on".equals(words[1])
                    ? SafeModeAction.ENTER
                    : SafeModeAction.LEAVE);
                return "";
            default:
                throw new IllegalArgumentException("no such command: " + words[0]);
        }
    }

    private static long quota(String word) {
        return "none".equals(word) ? HdfsConstants.QUOTA_RESET : Long.parseLong(word);
    }
}
