//! The interactive shell: statements end in `;`, `\d` describes, `\q` leaves.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaworks_engine::{Engine, EngineError, Options, print_results};

use crate::args::RunArguments;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

const HELP: &str = "Statements end with ;   \\d lists tables   \\d NAME describes one   \\q leaves";

/// Reads statements until the end of the input. An error is printed and the next statement read.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), EngineError> {
    let options = Options { interactive: true, ..arguments.options()? };
    let results = print_results(arguments.format(), std::io::stdout());
    let say = Box::new(|text: &str| eprintln!("{text}"));
    let mut engine = Engine::new(options, results, say, Arc::new(AtomicBool::new(false)))?;
    let left = if std::io::stdin().is_terminal() { interactive(&mut engine) } else { piped(&mut engine) };
    left.and(engine.close())
}

fn interactive(engine: &mut Engine) -> Result<(), EngineError> {
    let terminal = |error: ReadlineError| EngineError::new(format!("cannot read the terminal: {error}"), "");
    let mut editor = DefaultEditor::new().map_err(terminal)?;
    eprintln!("deltaworks {}. {HELP}", env!("CARGO_PKG_VERSION"));
    let mut pending = String::new();
    loop {
        let prompt = if pending.is_empty() { "deltaworks> " } else { "        ..> " };
        match editor.readline(prompt) {
            Ok(line) => {
                let _ = editor.add_history_entry(&line);
                if !take_line(engine, &mut pending, &line) {
                    return Ok(());
                }
            }
            Err(ReadlineError::Interrupted) => pending.clear(),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal(error)),
        }
    }
}
fn piped(engine: &mut Engine) -> Result<(), EngineError> {
    let mut pending = String::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| EngineError::new(format!("cannot read the input: {e}"), ""))?;
        if !take_line(engine, &mut pending, &line) {
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
    if let Err(error) = engine.run_statements(text, "shell") {
        eprintln!("error: {error}");
        if !error.help.is_empty() {
            eprintln!("  help: {}", error.help);
        }
    }
    let _ = std::io::stdout().flush();
}
