//! `measure [--label L] [--records N] -- COMMAND..`: runs a command and prints what it used, from start to exit.
//!
//! The command's standard output goes to this one's standard error, so that the figures stand alone.

use clap::Parser;
use deltaworks_benches::Result;
use deltaworks_benches::measure::Measured;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Runs a command and prints the wall time, CPU time and peak memory it used.
#[derive(Parser)]
struct Arguments {
    /// What to call the run.
    #[arg(long, default_value = "run")]
    label: String,
    /// How many records it reads, to print rates.
    #[arg(long)]
    records: Option<u64>,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let Arguments { label, records, command } = Arguments::parse();
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let start = Instant::now();
    let status = Command::new(program).args(arguments).stdout(std::io::stderr()).status();
    let status = status.map_err(|error| format!("could not run \"{program}\": {error}"))?;
    let measured = Measured::of_children(start)?;
    match records {
        Some(records) => println!("{label}: {}", measured.with_records(records)),
        None => println!("{label}: {measured}"),
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
