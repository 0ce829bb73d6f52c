//! The interactive shell: statements end in `;`, `\d` describes, `\q` leaves.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use deltaworks_engine::{Engine, EngineError, Options, print_results};

use crate::args::RunArguments;
use crate::{report, stop_signal};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

const HELP: &str = "Statements end with ;   \\d lists tables   \\d NAME describes one   \\q leaves";

/// Reads statements until the end of the input. An error is printed and the next statement read.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), EngineError> {
    let options = Options { interactive: true, ..arguments.options()? };
    let results = print_results(arguments.format(), std::io::stdout());
    let say = Box::new(|text: &str| eprintln!("{text}"));
    let stop = stop_signal()?;
    let mut engine = Engine::new(options, results, say, stop.clone())?;
    let left = if std::io::stdin().is_terminal() { interactive(&mut engine, &stop) } else { piped(&mut engine, &stop) };
    left.and(engine.close())
}

/// What a person does at the prompt.
enum Typed {
    Line(String),
    Interrupt,
    End,
    Broken(ReadlineError),
}
/// How long somebody may think before it is looked what has come meanwhile.
const MEANWHILE: Duration = Duration::from_millis(200);

/// Reads lines on a thread of their own: while it waits, what continuous statements read and write goes on.
fn interactive(engine: &mut Engine, stop: &AtomicBool) -> Result<(), EngineError> {
    let terminal = |error: ReadlineError| EngineError::new(format!("cannot read the terminal: {error}"), "");
    let mut editor = DefaultEditor::new().map_err(terminal)?;
    eprintln!("deltaworks {}. {HELP}", env!("CARGO_PKG_VERSION"));
    let ((typed, lines), (go_on, prompts)) = (channel(), channel::<&str>());
    // It ends with the process: nobody can take a prompt back.
    std::thread::spawn(move || {
        for prompt in prompts {
            let line = match editor.readline(prompt) {
                Ok(line) => {
                    let _ = editor.add_history_entry(&line);
                    Typed::Line(line)
                }
                Err(ReadlineError::Interrupted) => Typed::Interrupt,
                Err(ReadlineError::Eof) => Typed::End,
                Err(error) => Typed::Broken(error),
            };
            if typed.send(line).is_err() {
                return;
            }
        }
    });
    let (mut pending, mut goes_on) = (String::new(), true);
    loop {
        let prompt = if pending.is_empty() { "deltaworks> " } else { "        ..> " };
        let _ = go_on.send(prompt);
        let line = loop {
            match lines.recv_timeout(MEANWHILE) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                // An error is said once, and again where a statement meets it.
                Err(RecvTimeoutError::Timeout) if goes_on => goes_on = said(engine.go_on()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        goes_on = true;
        match line {
            Typed::Line(line) if !take_line(engine, &mut pending, &line) => return Ok(()),
            Typed::Line(_) => {}
            Typed::Interrupt => pending.clear(),
            Typed::End => return Ok(()),
            Typed::Broken(error) => return Err(terminal(error)),
        }
        if stop.swap(false, Ordering::Relaxed) {
            eprintln!("interrupted: it went as far as it had come by then");
        }
    }
}
fn piped(engine: &mut Engine, stop: &AtomicBool) -> Result<(), EngineError> {
    let mut pending = String::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| EngineError::new(format!("cannot read the input: {e}"), ""))?;
        if !take_line(engine, &mut pending, &line) || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    if !pending.trim().is_empty() {
        execute(engine, &pending);
    }
    Ok(())
}

/// Takes one line; false where it says to leave.
fn take_line(engine: &mut Engine, pending: &mut String, line: &str) -> bool {
    let word = line.trim();
    if pending.is_empty() && word.starts_with('\\') {
        let (command, rest) = word.split_once(' ').unwrap_or((word, ""));
        match command {
            "\\q" => return false,
            "\\d" if rest.trim().is_empty() => execute(engine, "SHOW TABLES"),
            "\\d" => execute(engine, &format!("DESCRIBE {}", rest.trim())),
            _ => eprintln!("{HELP}"),
        }
        return true;
    }
    pending.push_str(line);
    pending.push('\n');
    if word.ends_with(';') {
        execute(engine, &std::mem::take(pending));
    }
    true
}
fn execute(engine: &mut Engine, text: &str) {
    said(engine.run_statements(text, "shell"));
    let _ = std::io::stdout().flush();
}
/// Says an error; whether there was none.
fn said(outcome: Result<(), EngineError>) -> bool {
    if let Err(error) = &outcome {
        report(error);
    }
    outcome.is_ok()
}
