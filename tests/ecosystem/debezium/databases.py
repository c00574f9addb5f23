"""PostgreSQL and MariaDB as Debian has them, each a private server on a directory and a port of its own, with a table to change.

May not know: what reads the changes, and what the changes are.
"""

import json
import os
import pathlib
import shutil
import subprocess

from broker import Process, free_ports
from harness import ROOT

STATEMENT_SECONDS_MAX = 60
USER, PASSWORD, DATABASE, TABLE = "debezium", "throwaway", "shop", "items"
CREATE = f"create table {TABLE} (id int primary key, name varchar(60), amount bigint not null, price decimal(12, 2))"
# A row as text that is the same for both: JSON has no decimals.
COLUMNS = "'id', id, 'name', name, 'amount', amount, 'price'"


def install(packages, is_there):
    """Of Debian, as tests/setup does. At run level 1 a package starts no service of its own."""
    if not is_there():
        command = '. tests/toolchain; missing=("$@"); install_missing'
        subprocess.run(["bash", "-euc", command, "bash", *packages], cwd=ROOT, env={**os.environ, "RUNLEVEL": "1"}, check=True)
    assert is_there(), f"the packages {' and '.join(packages)} do not have what is looked for"


class Database(Process):
    """`name`: the connector's name, too, and the prefix of its topics. `topic`: where the changes of the table are. `connector`: what
    differs between the two in the connector's settings."""

    name, topic, packages, client, query = None, None, [], [], None

    def __init__(self, place):
        (self.port,) = free_ports(1)
        install(self.packages, self.is_installed)
        directory = place.directory / self.name
        directory.mkdir()
        super().__init__(directory)

    def run(self, *command, **more):
        done = subprocess.run(command, capture_output=True, text=True, timeout=STATEMENT_SECONDS_MAX, check=False, **more)
        assert done.returncode == 0, f"{command[0]}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def sql(self, *statements):
        return self.run(*self.client, input="".join(f"{statement};\n" for statement in statements))

    def is_ready(self):
        return subprocess.run(self.client, input="select 1;", capture_output=True, text=True, check=False).returncode == 0

    def table(self):
        rows = [json.loads(row) for row in self.sql(self.query).splitlines()]
        return {row["id"]: row for row in rows}

    def connector(self):
        address = {"database.hostname": "127.0.0.1", "database.port": self.port, "database.user": USER, "database.password": PASSWORD}
        return {"topic.prefix": self.name, **address}


class Postgres(Database):
    """The server refuses to be root's: its package has a user for it."""

    name, topic, packages = "postgres", f"postgres.public.{TABLE}", ["postgresql"]
    query = f"select json_build_object({COLUMNS}, price::text) from {TABLE}"
    settings = ["wal_level=logical", "listen_addresses=127.0.0.1", "fsync=off"]

    def __init__(self, place):
        super().__init__(place)
        self.programs = self.installed()[-1].parent
        self.user, owner = [], None
        if os.geteuid() == 0:
            owner = "postgres"
            self.user = ["setpriv", f"--reuid={owner}", f"--regid={owner}", "--init-groups", "--pdeathsig=KILL"]
            # Its directory lies in ours, which is nobody else's to list.
            place.directory.chmod(0o711)
            shutil.chown(self.directory, owner, owner)
        data = self.directory / "data"
        self.run(*self.user, self.programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N", cwd="/")
        own = [*self.settings, f"port={self.port}", f"unix_socket_directories={self.directory}"]
        self.command = [*self.user, str(self.programs / "postgres"), "-D", str(data), *(word for one in own for word in ("-c", one))]
        self.client = self.psql("postgres", "postgres")

    @staticmethod
    def installed():
        return sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))

    def is_installed(self):
        return bool(self.installed())

    def psql(self, user, database):
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", database]
        return [str(self.programs / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *where]

    def start(self):
        super().start()
        self.sql(f"create role {USER} superuser login password '{PASSWORD}'", f"create database {DATABASE} owner {USER}")
        self.client = self.psql(USER, DATABASE)
        self.sql(CREATE)
        return self

    def connector(self):
        own = {"connector.class": "io.debezium.connector.postgresql.PostgresConnector", "table.include.list": f"public.{TABLE}"}
        return {**super().connector(), **own, "database.dbname": DATABASE, "plugin.name": "pgoutput", "publication.autocreate.mode": "filtered"}


class MariaDb(Database):
    name, topic, packages = "mariadb", f"mariadb.{DATABASE}.{TABLE}", ["mariadb-server-core", "mariadb-client-core"]
    query = f"select json_object({COLUMNS}, cast(price as char)) from {TABLE}"
    binlog = ["--server-id=1", "--log-bin=binlog", "--binlog-format=ROW", "--binlog-row-image=FULL"]
    settings = ["--skip-name-resolve", "--bind-address=127.0.0.1", *binlog]

    def __init__(self, place):
        super().__init__(place)
        data, socket = self.directory / "data", self.directory / "socket"
        # It runs as whoever runs this, root too, if it is told so.
        user = ["--user=root"] if os.geteuid() == 0 else []
        self.run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db", *user)
        own = [*user, f"--datadir={data}", f"--socket={socket}", f"--port={self.port}", f"--pid-file={data}/pid", "--character-set-server=utf8mb4"]
        self.command = [shutil.which("mariadbd"), "--no-defaults", *own, *self.settings]
        talks = ["mariadb", "--no-defaults", "-N", "-B", "--raw", "--default-character-set=utf8mb4"]
        self.client = [*talks, f"--socket={socket}", "-u", "root"]
        self.later_client = [*talks, "-h", "127.0.0.1", "-P", str(self.port), "-u", USER, f"-p{PASSWORD}", DATABASE]

    def is_installed(self):
        return shutil.which("mariadbd") is not None and shutil.which("mariadb") is not None

    def start(self):
        super().start()
        self.sql(f"create database {DATABASE}", f"create user {USER} identified by '{PASSWORD}'", f"grant all on *.* to {USER}")
        self.client = self.later_client
        self.sql(CREATE)
        return self

    def connector(self):
        own = {"connector.class": "io.debezium.connector.mariadb.MariaDbConnector", "database.server.id": 5400, "database.ssl.mode": "disable"}
        lists = {"database.include.list": DATABASE, "table.include.list": f"{DATABASE}.{TABLE}"}
        return {**super().connector(), **own, **lists}
