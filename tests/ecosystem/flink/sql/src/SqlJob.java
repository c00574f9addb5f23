import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.GlobalConfiguration;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.table.api.config.TableConfigOptions;

import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Executes the SQL statements of a file. An INSERT becomes a job on the cluster of the configuration, and its id is printed.
 *
 * <p>Usage: SqlJob CONFIGURATION CHECKPOINT|- FILE. The job begins where CHECKPOINT left it.
 */
public final class SqlJob {
    private SqlJob() {}

    public static void main(String[] args) throws Exception {
        Configuration configuration = GlobalConfiguration.loadConfiguration(args[0]);
        if (!args[1].equals("-")) {
            configuration.set(StateRecoveryOptions.SAVEPOINT_PATH, args[1]);
        }
        configuration.set(TableConfigOptions.LOCAL_TIME_ZONE, "UTC");
        TableEnvironment tables =
                TableEnvironment.create(EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
        for (String statement : Files.readString(Path.of(args[2])).split(";")) {
            if (!statement.isBlank()) {
                TableResult result = tables.executeSql(statement.strip());
                result.getJobClient().ifPresent(job -> System.out.println("job " + job.getJobID()));
            }
        }
        System.exit(0);
    }
}
