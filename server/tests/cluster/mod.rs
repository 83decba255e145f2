//! A private Postgres for tests: a cluster in a temporary folder, on a Unix socket, that ends with
//! the process of the test.
//!
//! Without Postgres on the machine a test says that it is skipped. With `FIELDBOOK_POSTGRES=needed`
//! in the environment it fails in that case, and with `FIELDBOOK_POSTGRES=off` it is skipped anyhow.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

/// The folder of the versions of Debian's packages.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A running cluster.
pub(crate) struct Cluster {
    programs: PathBuf,
    folder: PathBuf,
    /// The user who runs it: nobody runs a database as root.
    user: Option<(u32, u32)>,
    settings: &'static [&'static str],
    running: Mutex<Option<Running>>,
}

/// The shell that runs the server. It ends the server, and removes the folder, when its standard
/// input closes: also if the test is killed.
struct Running(Child);

/// Returns the cluster of this process; none if the machine has no Postgres, which is said.
pub(crate) fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    // Nothing of it is to survive the machine.
    SHARED.get_or_init(|| Cluster::start(&["-c", "fsync=off"])).as_ref()
}

fn programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    versions.sort();
    let mut folders = versions.into_iter().rev().map(|(_, path)| path.join("bin"));
    folders.find(|folder| folder.join("initdb").exists())
}

/// Returns the user and the group of a name.
fn user(name: &str) -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

impl Cluster {
    /// Makes a cluster of its own, and starts it; none if the machine has no Postgres.
    pub(crate) fn start(settings: &'static [&'static str]) -> Option<Self> {
        let wanted = std::env::var("FIELDBOOK_POSTGRES").unwrap_or_default();
        if wanted == "off" {
            eprintln!("SKIPPED: FIELDBOOK_POSTGRES=off");
            return None;
        }
        let Some(programs) = programs() else {
            assert!(
                wanted != "needed",
                "Postgres is needed and not installed (Debian: apt-get install postgresql)"
            );
            eprintln!("SKIPPED: there is no Postgres here (Debian: apt-get install postgresql)");
            return None;
        };
        let is_root = rustix::process::geteuid().is_root();
        let user = if is_root { user("postgres").or_else(|| user("nobody")) } else { None };
        let folder = tempfile::Builder::new().prefix("fieldbook-pg").tempdir().unwrap().keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
        if let Some((user, group)) = user {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let cluster = Self { programs, folder, user, settings, running: Mutex::new(None) };
        let made = cluster
            .command("initdb")
            .args(["-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        // This user is asked for a password.
        let rules = cluster.data().join("pg_hba.conf");
        let others = std::fs::read_to_string(&rules).unwrap();
        std::fs::write(&rules, format!("local all locked scram-sha-256\n{others}")).unwrap();
        cluster.run();
        Some(cluster)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        self.as_user(&mut command);
        command.arg("-D").arg(self.data());
        command
    }

    fn as_user(&self, command: &mut Command) {
        if let Some((user, group)) = self.user {
            command.gid(group).uid(user);
        }
        command.current_dir(&self.folder);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the server, and waits until it answers. After a kill the processes of its connections
    /// may still end, and then a start fails.
    pub(crate) fn run(&self) {
        for _ in 0..4 {
            self.spawn();
            if (0..300).any(|_| self.answers()) {
                return;
            }
            self.end();
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        panic!("Postgres does not start:\n{log}");
    }

    fn answers(&self) -> bool {
        let mut asked = Command::new(self.programs.join("pg_isready"));
        let asked = asked.arg("-q").arg("-h").arg(&self.folder).status();
        let answers = asked.is_ok_and(|status| status.success());
        if !answers {
            std::thread::sleep(Duration::from_millis(50));
        }
        answers
    }

    /// Ends the shell, and keeps the folder.
    fn end(&self) {
        if let Some(Running(mut shell)) = self.lock().take() {
            drop(shell.stdin.take().unwrap().write_all(b"stay\n"));
            shell.wait().unwrap();
        }
    }

    fn spawn(&self) {
        let mut shell = Command::new("sh");
        self.as_user(&mut shell);
        let script = r#"folder=$1; shift; "$@" >"$folder/log" 2>&1 & server=$!
            read -r said; kill -QUIT $server 2>/dev/null; wait $server
            [ "$said" = stay ] || rm -rf "$folder""#;
        shell.args(["-c", script, "sh"]).arg(&self.folder).arg(self.programs.join("postgres"));
        shell.arg("-D").arg(self.data()).arg("-k").arg(&self.folder);
        shell.args(["-c", "listen_addresses=", "-c", "max_connections=300"]).args(self.settings);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        *self.lock() = Some(Running(shell.spawn().unwrap()));
    }

    /// Kills the server as a loss of power would, and starts it again once nothing of it is left.
    pub(crate) fn kill_and_run(&self) {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let number = text.lines().next().unwrap().parse().unwrap();
        let server = rustix::process::Pid::from_raw(number).unwrap();
        rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
        self.end();
        // The processes of its connections end by themselves; only then may another server start.
        std::thread::sleep(Duration::from_millis(500));
        self.run();
    }

    /// Makes an empty database, and returns its name.
    pub(crate) async fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = self.client("postgres").await;
        admin.batch_execute(&format!("create database {name}")).await.unwrap();
        name
    }

    /// Returns the address of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_of("tester", database)
    }

    /// Returns the address of a database for a user, and perhaps a password.
    pub(crate) fn url_of(&self, user: &str, database: &str) -> String {
        let folder = self.folder.to_str().unwrap().replace('/', "%2F");
        format!("postgres://{user}@{folder}/{database}")
    }

    /// Returns the path of the socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// Connects to a database.
    pub(crate) async fn client(&self, database: &str) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url(database), NoTls).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        client
    }

    /// Returns the folder of the cluster.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}
