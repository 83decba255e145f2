//! A server that is stopped and started again, and devices: the program, driven through its
//! standard input and output.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use fieldbook_server::{ServeOptions, Server, serve};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The longest that a line is waited for. A test that runs into it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with books, and the server whose store is in it.
pub(crate) struct Office {
    runtime: Runtime,
    folder: TempDir,
    address: SocketAddr,
    server: Option<Server>,
}

impl Office {
    pub(crate) fn open() -> Self {
        let mut office = Self {
            runtime: Runtime::new().unwrap(),
            folder: TempDir::new().unwrap(),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            server: None,
        };
        office.start_server();
        office
    }

    /// Starts the server, after the first time on the same store and port.
    pub(crate) fn start_server(&mut self) {
        let mut options = ServeOptions::new(self.address, self.path("crm.store"));
        options.rights = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("rights.json"));
        let server = self.runtime.block_on(serve(options)).unwrap();
        self.address = server.local_addr();
        self.server = Some(server);
    }

    pub(crate) fn stop_server(&mut self) {
        self.runtime.block_on(self.server.take().unwrap().shutdown()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the program with a book of this name, as this user.
    pub(crate) fn device(&self, book: &str, user: &str) -> Device {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crm"));
        command.arg(self.path(book)).arg(user).arg(format!("http://{}", self.address));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            printed.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let input = child.stdin.take();
        let mut device = Device { child, input, lines, remarks: 0 };
        device.wait_for("`help` lists the commands");
        device
    }
}

/// The running program.
pub(crate) struct Device {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    remarks: usize,
}

impl Device {
    fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Types a command, and returns everything that is printed until it is done.
    pub(crate) fn say(&mut self, command: &str) -> String {
        self.remarks += 1;
        // The program prints a remark when it has done what was typed before.
        let end = format!("# {}", self.remarks);
        self.type_line(command);
        self.type_line(&end);
        self.wait_for(&format!("> {end}"))
    }

    /// Types a command that has to succeed.
    #[track_caller]
    pub(crate) fn ok(&mut self, command: &str) -> String {
        let said = self.say(command);
        assert!(!said.contains("error: "), "{said}");
        said
    }

    /// Waits for a line that ends so, and returns everything up to it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, end: &str) -> String {
        let mut said = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => said = said + &line + "\n",
                Err(error) => panic!("no `{end}` ({error}) in:\n{said}"),
            }
            if said.trim_end().ends_with(end) {
                return said;
            }
        }
    }

    /// Types all lines of a script, and returns everything that is printed after the start.
    pub(crate) fn script<'l>(mut self, lines: impl Iterator<Item = &'l str>) -> String {
        lines.for_each(|line| self.type_line(line));
        drop(self.input.take());
        let said: String = self.lines.iter().map(|line| line + "\n").collect();
        self.quit();
        said
    }

    /// Ends the input, as a script does, and waits for the program to end well.
    pub(crate) fn quit(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }

    /// Types the last command, which ends the program.
    pub(crate) fn end_with(mut self, command: &str) {
        self.type_line(command);
        self.quit();
    }

    /// Kills the program.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A program that has ended cannot be killed, which is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
