//! `fold FILE`: folds a changelog to the rows it leaves and prints how many there are and their hash.

use clap::Parser;
use deltaworks_benches::Result;
use deltaworks_benches::answer::Answer;
use std::path::PathBuf;

/// Folds a changelog to the rows it leaves.
#[derive(Parser)]
struct Arguments {
    /// A file of changelog lines: `{"op":"+I|-U|+U|-D","tick":7,"row":{..}}` or the upsert form.
    file: PathBuf,
    /// Fail unless the hash is this one.
    #[arg(long)]
    expect: Option<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let answer = Answer::of_changelog(&arguments.file)?;
    let (rows, hash) = answer.rows_and_hash()?;
    println!("rows={rows} changes={} answer={hash}", answer.changes());
    match arguments.expect {
        Some(expected) if expected != hash => Err(format!("the answer is {hash}, not {expected}").into()),
        _ => Ok(()),
    }
}
