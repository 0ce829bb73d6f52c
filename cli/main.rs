//! The `deltaworks` binary: parses arguments, calls the engine, prints.
//!
//! Result sets go to stdout and nothing else does. Everything that is said goes to stderr; the last line of a failed run
//! begins with `error:`, and no other line does.

mod args;
mod bench;
mod shell;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use deltaworks_engine::{Engine, EngineError, Measuring, Results, print_results, read_job, record};

use args::{Arguments, Command, RunArguments};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Arguments that mean nothing.
const EXIT_USAGE: u8 = 2;
/// A second Ctrl-C.
const EXIT_INTERRUPTED: i32 = 130;
/// Planning recurses through expressions and plans; an unoptimised build needs room for it.
const STACK_BYTES: usize = 64 << 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    small_pages();
    if let Some(Err(error)) = arguments.command.options().map(RunArguments::options) {
        report(&error);
        return ExitCode::from(EXIT_USAGE);
    }
    let run = std::thread::Builder::new().name("coordinator".into()).stack_size(STACK_BYTES).spawn(|| command(arguments));
    let outcome = match run.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(EngineError::new("the coordinator failed", "this is a defect of deltaworks: please report it")),
        Err(error) => Err(EngineError::new(format!("could not start: {error}"), "")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}
/// Keeps the system from backing memory with huge pages: merging frees and takes large blocks all the time, and each would be
/// cleared 2 MiB at a time. Measured on first touch: a tenth of the peak memory and of the system's time.
fn small_pages() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}
fn report(error: &EngineError) {
    eprintln!("error: {error}");
    if !error.help.is_empty() {
        eprintln!("  help: {}", error.help);
    }
}

fn command(arguments: Arguments) -> Result<(), EngineError> {
    quiet_panics();
    match arguments.command {
        Command::Run { job, options } => run(&job, &options),
        Command::Explain { job, options } => {
            let (text, file) = read_job(&job)?;
            engine(&options)?.explain_script(&text, &file)
        }
        Command::Bench { job, single, days, options } => {
            let start = std::time::Instant::now();
            let (text, file) = read_job(&job)?;
            let figures =
                engine_with(&options, Box::new(|_| Ok(())))?.bench_script(&text, &file, Measuring { single, days })?;
            println!("{}", bench::line(&figures, start)?);
            Ok(())
        }
        Command::Shell { options } => shell::run(&options),
        Command::Record(arguments) => {
            let options = arguments.options()?;
            arguments.check_past()?;
            let records = record(&options, &mut |news| eprintln!("{news}"), &stop_signal()?)?;
            eprintln!("{records} records recorded in {}", options.out.display());
            Ok(())
        }
    }
}

/// What the first Ctrl-C sets; the second ends the process.
fn stop_signal() -> Result<Arc<AtomicBool>, EngineError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let armed = signal_hook::flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&stop));
        armed
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|e| EngineError::new(format!("could not listen for signals: {e}"), ""))?;
    }
    Ok(stop)
}

fn run(job: &std::path::Path, arguments: &RunArguments) -> Result<(), EngineError> {
    let (text, file) = read_job(job)?;
    engine(arguments)?.run_script(&text, &file)
}

/// An engine that prints to stdout and stderr and stops at the first Ctrl-C; the second ends the process.
fn engine(arguments: &RunArguments) -> Result<Engine, EngineError> {
    engine_with(arguments, print_results(arguments.format(), std::io::stdout()))
}
/// The same, with result sets going elsewhere.
fn engine_with(arguments: &RunArguments, results: Results) -> Result<Engine, EngineError> {
    arguments.check_folders()?;
    let stop = stop_signal()?;
    // Without a terminal only warnings are said, and what statements write.
    let quiet = !std::io::stderr().is_terminal();
    let say = move |text: &str| {
        if !quiet
            || text.starts_with("warning:")
            || text.starts_with("note:")
            || text.contains(" row")
            || text.contains(" into ")
        {
            eprintln!("{text}");
        }
    };
    Engine::new(arguments.options()?, results, Box::new(say), stop)
}

/// A worker's panic is reported as an error of the run; the default report on top of it would only confuse.
fn quiet_panics() {
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
}
