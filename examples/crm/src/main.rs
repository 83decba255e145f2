//! A customer list in a terminal that works offline, on `fieldbook` alone. README.md shows it.
//!
//! ```text
//!   main      the loop: a typed line, or news ──► print
//!   command   the list of commands, a line cut into words
//!   app       the book that is kept synced, and the commands that read and write leads
//!   network   the commands about the network and the users
//!   settle    the commands about failed changes and conflicts
//!   lead      the type, and the rules by which the book keeps it
//!   list      a list that stays live
//!   totals    the totals of the pipeline, a projection that stays live
//!   words     what the screen says
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the terminal is its screen")]

mod app;
mod command;
mod lead;
mod list;
mod network;
mod settle;
mod totals;
mod words;

use std::error::Error;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use app::{App, Next};
use fieldbook::SignOut;
use tokio::sync::mpsc;

const USAGE: &str = "crm BOOK USER [SERVER], for example: crm ann.book ann http://127.0.0.1:7070";

#[tokio::main]
async fn main() -> ExitCode {
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crm: {}", words::printable(&words::chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

async fn start() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (book, user, server) = match arguments.as_slice() {
        [book, user] => (*book, *user, "http://127.0.0.1:7070"),
        [book, user, server] => (*book, *user, *server),
        _ => return Err(USAGE.into()),
    };
    let mut app = App::open(book, user, server)?;
    println!("`help` lists the commands");
    let how = talk(&mut app, typed_lines()).await;
    // An error ends the app too, and leaves its book closed.
    let ended = app.end(how.as_ref().ok().cloned().unwrap_or(SignOut::Keep)).await;
    how.and(ended)
}

/// Answers lines, and prints news as they come, until the user leaves.
async fn talk(
    app: &mut App,
    mut lines: mpsc::UnboundedReceiver<String>,
) -> Result<SignOut, Box<dyn Error>> {
    let is_terminal = std::io::stdin().is_terminal();
    loop {
        if is_terminal {
            print(&words::prompt(&app.book, app.is_offline))?;
        }
        let line = tokio::select! {
            biased;
            news = app.news() => {
                if is_terminal {
                    print!("\r\x1b[K"); // the news take the place of the prompt
                }
                print(&format!("{}\n", news?))?;
                continue;
            }
            line = lines.recv() => line,
        };
        let Some(line) = line else { return Ok(SignOut::Keep) };
        if !is_terminal {
            // A script is shown as it would look if it was typed.
            print(&format!("{}{line}\n", words::prompt(&app.book, app.is_offline)))?;
        }
        match app.run(&line).await {
            Ok(Next::Print(text)) if text.is_empty() => {}
            Ok(Next::Print(text)) => print(&format!("{text}\n"))?,
            Ok(Next::End(how)) => return Ok(how),
            Err(error) => print(&format!("error: {}\n", words::chain(&*error)))?,
        }
    }
}

/// Reads lines on a thread of their own, because a read cannot be interrupted.
fn typed_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let typed = std::io::stdin().lock().lines().map_while(Result::ok);
        for line in typed {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn print(text: &str) -> std::io::Result<()> {
    print!("{}", words::printable(text));
    std::io::stdout().flush()
}
